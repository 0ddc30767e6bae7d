//! AQLM checkpoints: weights that are sums of vectors from learned codebooks.
//!
//! A layer is recognized by its tensors. Codebooks and scales of any float dtype are computed with
//! in `f32`, as the library does when it loads a checkpoint in that dtype.

mod config;
mod layout;
mod requantize;

use qoft_core::{
    Capabilities, LayerSource, LoadOptions, LoadedLinear, Matrix, NewTensor, QuantBackend,
    Registration, RequantizeOptions, Result, register_backend,
};

pub use config::AqlmConfig;

/// Layers with `codes`, `codebooks` and `scales`.
#[derive(Debug, Clone, Copy)]
pub struct Aqlm;

/// The registration of [`Aqlm`].
pub static REGISTRATION: Registration = Registration {
    order: 400,
    backend: &Aqlm,
};

register_backend!(REGISTRATION);

impl QuantBackend for Aqlm {
    fn name(&self) -> &'static str {
        "aqlm"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            requantize: true,
            ..Capabilities::LINEAR
        }
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        layer.has("codes") || layer.has("codebooks")
    }

    fn load(&self, layer: &LayerSource, _options: &LoadOptions) -> Result<LoadedLinear> {
        layout::load(self, layer)
    }

    fn requantize(
        &self,
        layer: &LayerSource,
        weight: &Matrix,
        _options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, layer, weight)
    }
}
