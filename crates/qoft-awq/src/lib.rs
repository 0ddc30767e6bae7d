//! AWQ checkpoints of AutoAWQ and GPTQModel: 4 bits, in the layouts GEMM and GEMV.
//!
//! A layer is recognized by its tensors. GPTQ layers have tensors of the same names; there the
//! configuration's `quant_method` decides, and without one the shapes do.

mod config;
mod layout;
mod requantize;

use qoft_scheme::{
    Capabilities, LayerSource, LoadOptions, LoadedLinear, Matrix, NewTensor, QuantBackend,
    Registration, RequantizeOptions, Result, register_backend,
};

pub use config::{AwqConfig, Layout};

/// 4-bit integers with a scale and a zero point for each group of input channels.
///
/// The library computes with the weights that it dequantizes, so [`qoft_scheme::Purpose`] changes
/// nothing.
#[derive(Debug, Clone, Copy)]
pub struct Awq;

/// The registration of [`Awq`].
pub static REGISTRATION: Registration = Registration {
    order: 500,
    backend: &Awq,
};

register_backend!(REGISTRATION);

impl QuantBackend for Awq {
    fn name(&self) -> &'static str {
        "awq"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            requantize: true,
            ..Capabilities::LINEAR
        }
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        layout::is_awq(layer) || layout::is_scaled_activation(layer)
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
