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

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Deferred, Keys, LayerSource, LoadedLinear, NewTensor, ParsedLayer,
    Purpose, QuantBackend, Registration, Requantize, Result, Scheme, SchemeOptions,
    register_backend,
};

pub use config::AqlmConfig;
pub use requantize::Codebooks;

use layout::AqlmLayer;

/// What becomes of the codebooks of a changed layer.
const CODEBOOKS: &str = "codebooks";

/// Layers with `codes`, `codebooks` and `scales`.
#[derive(Debug, Clone, Copy)]
pub struct Aqlm;

/// The registration of [`Aqlm`], at PEFT's place.
pub static REGISTRATION: Registration = Registration::new(&Aqlm).at(400);

register_backend!(REGISTRATION);

impl QuantBackend for Aqlm {
    fn name(&self) -> &'static str {
        "aqlm"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize()
    }

    fn options(&self) -> &'static [&'static str] {
        &[CODEBOOKS]
    }

    fn open(
        &self,
        checkpoint: &Checkpoint,
        options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>> {
        let keys = Keys::quantization(checkpoint, self.config_files())?;
        Ok(Some(Box::new(Opened {
            codebooks: options
                .choice(CODEBOOKS, &Codebooks::NAMES)?
                .unwrap_or_default(),
            config: AqlmConfig::read(&keys).into(),
            permuted: layout::is_permuted(checkpoint),
        })))
    }
}

/// A checkpoint that may have layers of the scheme.
struct Opened {
    codebooks: Codebooks,
    config: Deferred<Option<AqlmConfig>>,
    /// Layers have their codes turned over, also those that do not tell.
    permuted: bool,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        layer.has("codes") || layer.has("codebooks")
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let config = self.config.get()?;
        let layer = AqlmLayer::parse(layer, config.as_ref(), self.permuted)?;
        let codebooks = self.codebooks;
        Ok(Box::new(Parsed { layer, codebooks }))
    }
}

/// A layer, and what becomes of its codebooks.
struct Parsed {
    layer: AqlmLayer,
    codebooks: Codebooks,
}

impl ParsedLayer for Parsed {
    fn shape(&self) -> [usize; 2] {
        self.layer.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::new(self.layer.packed()?))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(&self.layer, weight, self.codebooks, how)
    }
}
