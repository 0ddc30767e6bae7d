//! AQLM checkpoints: weights that are sums of vectors from learned codebooks.
//!
//! A layer is recognized by its tensors. Codebooks and scales of any float dtype are computed with
//! in `f32`, as the library does when it loads a checkpoint in that dtype.
//!
//! A changed weight is written with codebooks that are fitted to it, or with those that the layer
//! had: the option `aqlm.codebooks=refit` or `keep`, see [`Codebooks`].

mod books;
mod config;
mod layout;
mod refit;
mod requantize;
mod search;
mod sums;
#[cfg(test)]
mod testing;

use qoft_scheme::{
    Capabilities, LayerSource, LoadOptions, LoadedLinear, Matrix, NewTensor, QuantBackend,
    Registration, RequantizeOptions, Result, register_backend,
};

pub use config::AqlmConfig;
pub use requantize::Codebooks;

/// What becomes of the codebooks of a changed layer.
const CODEBOOKS: &str = "codebooks";

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

    fn options(&self) -> &'static [&'static str] {
        &[CODEBOOKS]
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
        options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        let choice = options
            .backend
            .choice(self.name(), CODEBOOKS, &Codebooks::NAMES)?;
        requantize::requantize(self, layer, weight, choice.unwrap_or_default())
    }
}
