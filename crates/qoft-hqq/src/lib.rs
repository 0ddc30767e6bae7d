//! HQQ checkpoints: 1 to 8 bits with a scale and a zero point for each group.
//!
//! Layers describe themselves: what the library keeps as numbers and strings is stored as tensors
//! beside the codes. `config.json` is not needed, and the library's own files say nothing there.

mod config;
mod layout;
mod repack;
mod requantize;

use qoft_scheme::{
    Capabilities, LayerSource, LoadOptions, LoadedLinear, Matrix, NewTensor, QuantBackend,
    Registration, RequantizeOptions, Result, register_backend,
};

pub use config::{Axis, LayerConfig, Packing};

/// Layers with `W_q`, written by hqq itself or by transformers.
///
/// The library computes with the weights that it dequantizes, so [`qoft_scheme::Purpose`] changes
/// nothing.
#[derive(Debug, Clone, Copy)]
pub struct Hqq;

/// The registration of [`Hqq`].
pub static REGISTRATION: Registration = Registration {
    order: 700,
    backend: &Hqq,
};

register_backend!(REGISTRATION);

impl QuantBackend for Hqq {
    fn name(&self) -> &'static str {
        "hqq"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            requantize: true,
            ..Capabilities::LINEAR
        }
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        let names = ["nbits", "group_size", "axis"];
        layer.has("W_q") || names.iter().all(|name| layer.has(name))
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
