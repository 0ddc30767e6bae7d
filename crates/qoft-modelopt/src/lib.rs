//! Checkpoints that NVIDIA's modelopt exports: NVFP4, and FP8 by tensor, row or block; also MXFP4 and
//! MXFP8.
//!
//! Inputs are not quantized, whatever the configuration says of them: GPUs would do so for speed.

mod config;
mod layout;
mod quantize;
mod requantize;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Keys, LayerSource, LoadedLinear, NewTensor, ParsedLayer, Purpose,
    QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    is_cache_scale, register_backend,
};

use layout::ModeloptLayer;
use quantize::ToModelopt;

/// Layers with codes and `weight_scale` in a checkpoint whose configuration is modelopt's.
///
/// Dense weights are quantized by the key `quant_algo`: `W4A16_NVFP4` or `FP8_PER_CHANNEL_PER_TOKEN`.
#[derive(Debug, Clone, Copy)]
pub struct Modelopt;

/// The registration of [`Modelopt`].
pub static REGISTRATION: Registration = Registration::new(&Modelopt).at(1300);

register_backend!(REGISTRATION);

impl QuantBackend for Modelopt {
    fn name(&self) -> &'static str {
        config::NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().and_quantize()
    }

    fn config_files(&self) -> &'static [&'static str] {
        &[config::FILE]
    }

    fn open(&self, checkpoint: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        let keys = Keys::quantization(checkpoint, self.config_files())?;
        Ok(match config::is_modelopt(&keys) {
            true => Some(Box::new(Opened { keys })),
            false => None,
        })
    }

    fn settings(&self) -> &'static [&'static str] {
        &[quantize::ALGORITHM]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToModelopt::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint of the library; its layers say by their tensors what they are.
struct Opened {
    keys: Keys,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        ModeloptLayer::claims(layer)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        Ok(Box::new(ModeloptLayer::parse(layer, &self.keys)?))
    }

    fn is_beside_layers(&self, name: &str) -> bool {
        is_cache_scale(name)
    }
}

impl ParsedLayer for ModeloptLayer {
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
