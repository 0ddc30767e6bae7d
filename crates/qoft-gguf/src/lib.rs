//! GGUF files, as llama.cpp and its tools have them: whole models in one file or several.
//!
//! A file shows itself as a folder of Hugging Face: see [`GgufContainer`]. Its blocks are trained on
//! as they lie in the file, see [`Gguf`].

mod block;
mod change;
mod config;
mod container;
mod experts;
mod file;
mod layout;
mod model;
mod names;
mod parts;
mod quantize;
mod requantize;
mod rope;
mod split;
mod tokenizer;
mod write;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, LayerKind, LayerSource, LoadedLinear, NewTensor, ParsedLayer,
    Purpose, QuantBackend, Registration, Requantize, Result, Scheme, SchemeOptions,
    register_backend,
};

pub use container::{CONTAINER, GgufContainer};

use layout::BlockLayer;

/// Layers of GGUF's block types.
#[derive(Debug, Clone, Copy)]
pub struct Gguf;

/// The registration of [`Gguf`].
pub static REGISTRATION: Registration = Registration::new(&Gguf).at(1100);

register_backend!(REGISTRATION);

impl QuantBackend for Gguf {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR
            .and_requantize()
            .with_layers(&[LayerKind::Linear, LayerKind::Embedding])
    }

    fn open(&self, _: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        Ok(Some(Box::new(Self)))
    }
}

impl Scheme for Gguf {
    fn claim(&self, layer: &LayerSource) -> bool {
        layout::claimed(layer).is_some()
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        Ok(Box::new(BlockLayer::parse(layer)?))
    }
}

impl ParsedLayer for BlockLayer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::shared(self.packed()?))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
