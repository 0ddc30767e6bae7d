//! The behaviour that every architecture of models must have.

mod case;
mod compute;
mod damage;

use std::path::PathBuf;

use qoft_models::Architectures;

use case::Case;

/// An architecture with models that transformers wrote: it has to describe them, compute what
/// transformers computes, and refuse what does not fit.
///
/// A folder holds a model, `config.json` and safetensors, and a `reference.json` with `rows` of
/// token ids of different length and the `loss` of transformers: the mean cross-entropy of all
/// predicted tokens. Small models with random weights do. The schemes of the checkpoints have to be
/// linked.
///
/// The checks, in this order:
///
/// 1. the layers that are known before loading are those that the model has, with their sizes;
/// 2. the loss is that of transformers, within 3e-4 of it;
/// 3. with a cache the logits are those without, however the tokens are cut into pieces;
/// 4. the loss falls as fast as the gradients of adapters say, and the backward by block gives the
///    same gradients;
/// 5. an adapter of all linear layers comes back from its file;
/// 6. tensors that are missing or of another shape are errors that name them;
/// 7. whatever is changed in `config.json`, nothing panics.
#[derive(Clone)]
pub struct ArchitectureSubject {
    architectures: Architectures,
    reference: &'static str,
    folders: Vec<PathBuf>,
}

impl ArchitectureSubject {
    /// The architectures in a list.
    pub fn new(architectures: Architectures) -> Self {
        Self {
            architectures,
            reference: "reference.json",
            folders: Vec::new(),
        }
    }

    /// With models in these folders.
    #[must_use]
    pub fn folders<P: Into<PathBuf>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        self.folders.extend(folders.into_iter().map(Into::into));
        self
    }

    /// With another name for `reference.json`.
    #[must_use]
    pub fn reference(self, file: &'static str) -> Self {
        Self {
            reference: file,
            ..self
        }
    }

    /// Runs all checks.
    ///
    /// # Panics
    /// If one fails; the message names the folder.
    #[track_caller]
    pub fn check(&self) {
        assert!(!self.folders.is_empty(), "no folder of a model is given");
        for folder in &self.folders {
            let case = Case::open(folder, &self.architectures, self.reference);
            compute::check(&case);
            damage::check(&case);
        }
    }
}
