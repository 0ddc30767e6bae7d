//! bitsandbytes checkpoints: 4-bit nf4 and fp4, and LLM.int8.
//!
//! Two backends, `bnb-8bit` and `bnb-4bit`, as PEFT has two dispatchers. A layer is recognized
//! by its tensors, not by `config.json`: checkpoints mix quantized and dense layers.

mod config;
mod input;
mod layout;
mod requantize;

use qoft_scheme::{
    Capabilities, LayerSource, LoadOptions, LoadedLinear, Matrix, NewTensor, QuantBackend,
    Registration, RequantizeOptions, Result, register_backend,
};

pub use config::{BlobDtype, QuantState};
pub use input::OutlierInt8;

/// nf4 and fp4 layers, with or without double quantization.
#[derive(Debug, Clone, Copy)]
pub struct Bnb4Bit;

/// LLM.int8 layers.
///
/// They compute with dequantized weights, as the reference does in training. With the option
/// `bnb-8bit.int8_activations=true` the input is quantized too, with outlier columns left
/// alone, as the reference does in evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Bnb8Bit;

/// The registration of [`Bnb8Bit`].
pub static REGISTRATION_8BIT: Registration = Registration {
    order: 100,
    backend: &Bnb8Bit,
};
/// The registration of [`Bnb4Bit`].
pub static REGISTRATION_4BIT: Registration = Registration {
    order: 200,
    backend: &Bnb4Bit,
};

register_backend!(REGISTRATION_8BIT);
register_backend!(REGISTRATION_4BIT);

/// Quantize activations as the reference does in evaluation.
const INT8_ACTIVATIONS: &str = "int8_activations";

impl QuantBackend for Bnb4Bit {
    fn name(&self) -> &'static str {
        "bnb-4bit"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            requantize: true,
            ..Capabilities::LINEAR
        }
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        layer.has("weight.quant_map")
            || layer.suffixes().any(|s| s.starts_with(config::QUANT_STATE))
    }

    fn load(&self, layer: &LayerSource, options: &LoadOptions) -> Result<LoadedLinear> {
        layout::load_4bit(self, layer, options.purpose)
    }

    fn requantize(
        &self,
        layer: &LayerSource,
        weight: &Matrix,
        options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        requantize::requantize_4bit(self, layer, weight, options)
    }
}

impl QuantBackend for Bnb8Bit {
    fn name(&self) -> &'static str {
        "bnb-8bit"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            requantize: true,
            ..Capabilities::LINEAR
        }
    }

    fn options(&self) -> &'static [&'static str] {
        &[INT8_ACTIVATIONS]
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        layer.has("SCB")
    }

    fn load(&self, layer: &LayerSource, options: &LoadOptions) -> Result<LoadedLinear> {
        let mut loaded = layout::load_8bit(self, layer)?;
        if options.backend.flag(self.name(), INT8_ACTIVATIONS)? {
            loaded.input_quantizer = Some(input::quantizer(self, layer)?);
        }
        Ok(loaded)
    }

    fn requantize(
        &self,
        layer: &LayerSource,
        weight: &Matrix,
        options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        requantize::requantize_8bit(layer, weight, options.search)
    }
}
