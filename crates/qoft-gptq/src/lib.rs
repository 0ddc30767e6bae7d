//! GPTQ checkpoints of AutoGPTQ and GPTQModel: 2, 3, 4 and 8 bits, zero points of both versions,
//! any assignment of input channels to groups.
//!
//! A layer is recognized by its tensors. AWQ layers have tensors of the same names; there the
//! configuration's `quant_method` decides, and without one the shapes do.

mod config;
mod layout;
mod requantize;
mod zeros;

use qoft_scheme::{
    Capabilities, LayerSource, LoadOptions, LoadedLinear, Matrix, NewTensor, QuantBackend,
    Registration, RequantizeOptions, Result, register_backend,
};

pub use config::{GptqConfig, ZeroPoints};

/// Integers with a scale and a zero point for each group of input channels.
///
/// The library computes with the weights that it dequantizes, so [`qoft_scheme::Purpose`] changes
/// nothing.
#[derive(Debug, Clone, Copy)]
pub struct Gptq;

/// The registration of [`Gptq`].
pub static REGISTRATION: Registration = Registration {
    order: 600,
    backend: &Gptq,
};

register_backend!(REGISTRATION);

impl QuantBackend for Gptq {
    fn name(&self) -> &'static str {
        "gptq"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            requantize: true,
            ..Capabilities::LINEAR
        }
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        layout::is_gptq(layer)
    }

    fn load(&self, layer: &LayerSource, _options: &LoadOptions) -> Result<LoadedLinear> {
        layout::load(self, layer)
    }

    fn requantize(
        &self,
        layer: &LayerSource,
        weight: &Matrix,
        options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, layer, weight, options)
    }
}
