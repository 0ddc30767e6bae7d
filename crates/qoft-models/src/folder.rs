//! The folder of a model: its checkpoint, and what its architecture says about it.

mod told;

use std::path::Path;
use std::sync::Arc;

use qoft_core::{Checkpoint, Error, LayerKind, Result, Schemes};

use crate::json::Object;
use crate::registry::Architectures;
use crate::spec::ModelSpec;

/// Whether the head is said to be the embedding, and is stored with other values all the same.
fn has_own_head(spec: &ModelSpec, checkpoint: &Checkpoint) -> bool {
    let Some(table) = spec.tied_table() else {
        return false;
    };
    let head = spec.names().head;
    match (
        checkpoint.get(&format!("{head}.weight")),
        checkpoint.get(&format!("{table}.weight")),
    ) {
        (Some(head), Some(table)) => !head.is_same(&table),
        // Another scheme's tensors, or none.
        (None, _) => checkpoint.under(head).next().is_some(),
        (Some(_), None) => true,
    }
}

/// With the table of the tokens under its name, where files only have the head that shares it.
fn with_table(spec: &ModelSpec, checkpoint: Checkpoint) -> Checkpoint {
    let Some(table) = spec.tied_table() else {
        return checkpoint;
    };
    let head = spec.names().head;
    let is_stored = |path| checkpoint.under(path).next().is_some();
    if is_stored(table) || !is_stored(head) {
        return checkpoint;
    }
    let renamed = |name: &str| match name.strip_prefix(head) {
        Some(rest) if rest.starts_with('.') => format!("{table}{rest}"),
        _ => name.to_owned(),
    };
    checkpoint.renamed(|name| Some(renamed(name)))
}

/// Says which tensors are none of the model's: as in transformers, nothing is computed with them.
fn tell_of_foreign(spec: &ModelSpec, checkpoint: &Checkpoint) {
    // Of biases that a layer does not have those that are not 0 are told where they are read.
    let is_bias = |name: &str| {
        let layer = name.strip_suffix(".bias").and_then(|path| spec.layer(path));
        layer.is_some_and(|layer| layer.kind == LayerKind::Linear)
    };
    let tensors = checkpoint
        .names()
        .filter(|name| !spec.is_made_from(checkpoint, name));
    let tensors = tensors.filter(|name| !is_bias(name));
    let mut foreign: Vec<&str> = tensors
        .filter(|name| !spec.names().is_buffer(name))
        .collect();
    if !foreign.is_empty() {
        // A configuration that cannot be read is told where the schemes are opened for good.
        let schemes = Schemes::linked(checkpoint).ok();
        let is_known = |name: &str| schemes.as_ref().is_some_and(|s| s.is_beside_layers(name));
        foreign.retain(|name| !is_known(name));
    }
    let Some(first) = foreign.first() else {
        return;
    };
    let last = foreign.iter().filter_map(|name| spec.block(name)).max();
    let blocks = spec.config().num_hidden_layers;
    match last.filter(|&last| last >= blocks) {
        Some(last) => tracing::warn!(
            "{}: config.json asks for {blocks} layers, and the files have {}: the others are \
             not used, as transformers does not use them",
            checkpoint.dir().display(),
            last + 1
        ),
        None => tracing::warn!(
            "{}: {} tensors are none of the model's and are not used, the first is `{first}`",
            checkpoint.dir().display(),
            foreign.len()
        ),
    }
}

/// An opened model, of an architecture that is known or not.
#[derive(Clone)]
pub struct ModelFolder {
    checkpoint: Checkpoint,
    architectures: Architectures,
    spec: Option<Arc<ModelSpec>>,
    refused: Option<Arc<Error>>,
}

impl ModelFolder {
    /// Opens a folder with `config.json` and safetensors. What a [`Container`](qoft_core::Container) reads is
    /// opened by [`Containers::open`](qoft_core::Containers::open), and then handed to [`Self::new`].
    ///
    /// Tensors have the names that they have in the whole model, also where the file was written
    /// without the model's head and lacks their first component.
    ///
    /// # Errors
    /// If a file is missing, damaged, or names files outside the folder. A model of an unknown
    /// architecture is none: much can be done without one.
    pub fn open(dir: impl AsRef<Path>, architectures: &Architectures) -> Result<Self> {
        Ok(Self::new(Checkpoint::open(dir)?, architectures))
    }

    /// As [`Self::open`], for a checkpoint that is opened already.
    pub fn new(mut checkpoint: Checkpoint, architectures: &Architectures) -> Self {
        let config = checkpoint.config();
        let found = architectures.find(config).ok();
        let (spec, refused) = match found.map(|found| found.describe(Object::root(config))) {
            Some(Ok(spec)) => (Some(Arc::new(spec)), None),
            Some(Err(error)) => (None, Some(Arc::new(error))),
            None => (None, None),
        };
        if let Some(spec) = &spec {
            // Where a file has a tensor with and without the base, the later name counts, as in
            // transformers.
            let names = spec.names();
            let in_model = |name: &str| names.in_model(name, |name| spec.reads(name));
            checkpoint = checkpoint.renamed(|name| Some(in_model(name)));
            checkpoint = with_table(spec, checkpoint);
            for gathered in spec.gathered() {
                gathered.divide(&mut checkpoint);
            }
        }
        // As in transformers 5, a head of its own is not given up for a word in the configuration.
        let spec = spec.map(|spec| match has_own_head(&spec, &checkpoint) {
            false => spec,
            true => {
                tracing::warn!(
                    "{}: config.json ties the output head to the embedding, but the files have one \
                     with other values, which is used, as transformers 5 does",
                    checkpoint.path().display()
                );
                Arc::new(spec.untied())
            }
        });
        if let Some(spec) = &spec {
            tell_of_foreign(spec, &checkpoint);
        }
        Self {
            checkpoint,
            architectures: architectures.clone(),
            spec,
            refused,
        }
    }

    /// The same model with another checkpoint of the same layers: quantized ones, for example.
    #[must_use]
    pub fn with_checkpoint(&self, checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            ..self.clone()
        }
    }

    /// The same model with a checkpoint of the same layers whose `config.json` gives some of them other
    /// sizes.
    ///
    /// # Errors
    /// Those of [`Architectures::describe`].
    pub fn resized(&self, checkpoint: Checkpoint) -> Result<Self> {
        let spec = self.architectures.describe(checkpoint.config())?;
        // What files and configuration say of the head was settled when the folder was opened.
        let spec = match self.is_tied() {
            true => spec,
            false => spec.untied(),
        };
        Ok(Self {
            checkpoint,
            spec: Some(Arc::new(spec)),
            ..self.clone()
        })
    }

    /// The tensors.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What is known of the model; `None` where its architecture is not, or cannot compute it.
    pub fn known(&self) -> Option<&ModelSpec> {
        self.spec.as_deref()
    }

    /// Why a model of a known architecture cannot be computed.
    pub fn refused(&self) -> Option<&Error> {
        self.refused.as_deref()
    }

    /// What is known of the model.
    ///
    /// # Errors
    /// Those of [`Architectures::describe`].
    pub fn spec(&self) -> Result<Arc<ModelSpec>> {
        match &self.spec {
            Some(spec) => Ok(spec.clone()),
            None => self
                .architectures
                .describe(self.checkpoint.config())
                .map(Arc::new),
        }
    }
}
