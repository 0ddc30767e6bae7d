//! FP8 checkpoints: 8-bit floats (E4M3) with a scale for each block of rows and columns, for each
//! row, or for the whole matrix.
//!
//! `quant_method` is `fp8` (DeepSeek V3, Qwen3-FP8, transformers' `FineGrainedFP8Config`, AutoFP8) or
//! `fbgemm_fp8`. A GPU would quantize the inputs of such layers too. Where there is none, transformers
//! computes with dequantized weights and plain inputs, and so do layers here, unless the option
//! `fp8.activations=true` asks for more.

mod config;
mod input;
mod layout;
mod quantize;
mod requantize;
mod tensors;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Deferred, Keys, LayerSource, LoadedLinear, NewTensor, ParsedLayer,
    Purpose, QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    is_cache_scale, register_backend,
};

use config::{Fp8Config, Named};
use layout::Fp8Layer;
use quantize::ToFp8;
use tensors::BESIDE_LAYERS;

/// Layers with an FP8 weight and its scales.
///
/// Dense weights are quantized by the keys `weight_block_size` and `scale_fmt`, or, for `quant_method`
/// `fbgemm_fp8`, with a scale for each row.
#[derive(Debug, Clone, Copy)]
pub struct Fp8;

/// The registration of [`Fp8`].
pub static REGISTRATION: Registration = Registration::new(&Fp8).at(900);

register_backend!(REGISTRATION);

/// The option that quantizes inputs.
const ACTIVATIONS: &str = "activations";

impl QuantBackend for Fp8 {
    fn name(&self) -> &'static str {
        "fp8"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().and_quantize()
    }

    fn options(&self) -> &'static [&'static str] {
        &[ACTIVATIONS]
    }

    fn open(
        &self,
        checkpoint: &Checkpoint,
        options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>> {
        let activations = options.flag(ACTIVATIONS)?;
        let keys = Keys::quantization(checkpoint, &[])?;
        let Some(named) = Named::of(&keys) else {
            return Ok(None);
        };
        let config = Fp8Config::read(&keys, named, activations).into();
        Ok(Some(Box::new(Opened { named, config })))
    }

    fn settings(&self) -> &'static [&'static str] {
        &[quantize::STRATEGY, "weight_block_size", "scale_fmt"]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToFp8::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint that may have layers of the scheme.
struct Opened {
    named: Named,
    config: Deferred<Fp8Config>,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        self.named.claims(layer)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let config = self.config.get()?;
        Ok(Box::new(Fp8Layer::parse(layer, config)?))
    }

    fn is_beside_layers(&self, name: &str) -> bool {
        is_cache_scale(name) || BESIDE_LAYERS.iter().any(|end| name.ends_with(end))
    }
}

impl ParsedLayer for Fp8Layer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, purpose: Purpose) -> Result<LoadedLinear> {
        let loaded = LoadedLinear::new(self.packed()?);
        let quantized = purpose == Purpose::Forward;
        Ok(loaded.with_input_quantizer(self.input_quantizer().filter(|_| quantized)))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
