//! Checkpoints that transformers saves with a `TorchAoConfig`: int8, 8-bit floats, integers of other widths,
//! and int4, weights only.
//!
//! What a weight is stands in the metadata of the files. Inputs are not quantized, whatever the files say of
//! them.

mod by_name;
mod config;
mod description;
mod grid;
mod layout;
mod quantize;
mod requantize;
mod tiles;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Keys, LayerKind, LayerSource, LoadedLinear, NewTensor, ParsedLayer,
    Purpose, QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    register_backend,
};

use layout::AoLayer;
use quantize::ToTorchAo;

/// Layers whose `weight` is one of torchao's tensor types.
///
/// Dense weights are quantized by `quant_type` (`int8_weight_only`, `float8_weight_only`, `int4_weight_only`,
/// `intx_weight_only`, or the library's configuration as JSON, also one for each name), `granularity`,
/// `group_size`, `weight_dtype`, `mapping_type` and `int4_packing_format`.
#[derive(Debug, Clone, Copy)]
pub struct TorchAo;

/// The registration of [`TorchAo`].
pub static REGISTRATION: Registration = Registration::new(&TorchAo).at(1500);

register_backend!(REGISTRATION);

impl QuantBackend for TorchAo {
    fn name(&self) -> &'static str {
        config::METHOD
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR
            .and_requantize()
            .and_quantize()
            .with_layers(&[LayerKind::Linear, LayerKind::Embedding])
    }

    fn open(&self, checkpoint: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        let keys = Keys::quantization(checkpoint, &[])?;
        let other = keys.is_of_another(&[config::METHOD]);
        Ok((!other).then(|| Box::new(Opened) as _))
    }

    fn settings(&self) -> &'static [&'static str] {
        &[
            config::QUANT_TYPE,
            config::GRANULARITY,
            config::GROUP_SIZE,
            config::WEIGHT_DTYPE,
            config::MAPPING,
            config::PACKING,
            config::SKIPS,
            config::WITH_HEAD,
        ]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToTorchAo::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint that may have layers of the scheme; the files say which.
struct Opened;

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        AoLayer::claims(layer)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        Ok(Box::new(AoLayer::parse(layer)?))
    }
}

impl ParsedLayer for AoLayer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::new(self.packed()?))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
