//! A model as its `config.json` describes it, before anything is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use qoft_core::{Checkpoint, Dense, LayerKind, Result};

use crate::any_body::AnyBody;
use crate::config::{ModelConfig, ModelNames};
use crate::gathered::{Gathered, Place};
use crate::layer_spec::LayerSpec;
use crate::loader::{Loader, Origin};
use crate::plan::Plan;

/// A validated configuration: it makes the body of a model.
pub trait Blueprint: Debug + Send + Sync + 'static {
    /// Makes everything below the output head from what `loader` has for it.
    ///
    /// It is called once with a loader without values, to learn which layers the model has.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the configuration.
    fn build(&self, model: &ModelConfig, loader: &Loader) -> Result<AnyBody>;
}

/// Everything that is known of a model without its tensors.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    config: ModelConfig,
    names: ModelNames,
    blueprint: Arc<dyn Blueprint>,
    layers: Vec<LayerSpec>,
    /// Module path → number of the layer.
    index: BTreeMap<String, usize>,
    /// Names of the tensors that are no layer's.
    tensors: BTreeSet<String>,
    /// Tensors that files may have in the place of those of layers.
    gathered: Vec<Gathered>,
}

/// The path of the module that a module or tensor lies in.
fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('.').map(|(parent, _)| parent)
}

impl ModelSpec {
    /// A model of this configuration.
    ///
    /// # Errors
    /// If its blueprint asks for something that no model has.
    pub fn new(config: ModelConfig, names: ModelNames, blueprint: impl Blueprint) -> Result<Self> {
        Self::of(config, names, Arc::new(blueprint))
    }

    /// The same model under other names, as a part of a larger one has them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_names(self, names: ModelNames) -> Result<Self> {
        Self::of(self.config, names, self.blueprint)
    }

    fn of(config: ModelConfig, names: ModelNames, blueprint: Arc<dyn Blueprint>) -> Result<Self> {
        let plan = Plan::default();
        blueprint.build(&config, &Loader::new(&plan, names.base))?;
        let (mut layers, tensors, gathered) = plan.into_parts();
        let head = [config.vocab_size, config.hidden_size];
        let head = LayerSpec::new(names.head, LayerKind::Linear, head);
        layers.push(match config.tie_word_embeddings {
            true => head.tied_to(names.token_table()),
            false => head,
        });
        let paths = layers.iter().map(|layer| layer.path.clone());
        Ok(Self {
            index: paths.zip(0..).collect(),
            config,
            names,
            blueprint,
            layers,
            tensors,
            gathered,
        })
    }

    /// The sizes and options that are common to all models.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The names of its parts.
    pub fn names(&self) -> &ModelNames {
        &self.names
    }

    /// All layers in the model's order, the output head last.
    pub fn layers(&self) -> &[LayerSpec] {
        &self.layers
    }

    /// The layer at a module path.
    pub fn layer(&self, path: &str) -> Option<&LayerSpec> {
        self.index.get(path).map(|&number| &self.layers[number])
    }

    /// Whether a tensor is one of the model's.
    pub fn has(&self, tensor: &str) -> bool {
        let mut parents = std::iter::successors(Some(tensor), |path| parent(path));
        self.tensors.contains(tensor) || parents.any(|path| self.index.contains_key(path))
    }

    /// Whether a tensor is one of the model's, and no layer's, although it may be below one.
    pub fn is_own_tensor(&self, tensor: &str) -> bool {
        self.tensors.contains(tensor)
    }

    /// Whether the model is made from a tensor of its files: one that it has, and not one beside a plain
    /// weight that says nothing of it, see [`Dense::is_dense`], one of a norm or convolution that it does
    /// not ask for, or the bias of a layer that has none.
    pub fn is_made_from(&self, checkpoint: &Checkpoint, tensor: &str) -> bool {
        if self.tensors.contains(tensor) {
            return true;
        }
        let mut parents = std::iter::successors(parent(tensor), |path| parent(path));
        let Some(layer) = parents.find_map(|path| self.layer(path)) else {
            return self.has(tensor);
        };
        match &tensor[layer.path.len() + 1..] {
            _ if matches!(layer.kind, LayerKind::Norm | LayerKind::Conv1d) => false,
            "weight" => true,
            "bias" => layer.bias,
            _ => self.tensors.contains(tensor) || !Dense::is_dense(&layer.source(checkpoint)),
        }
    }

    /// The list of experts that a tensor belongs to, if no file has such experts one by one, and its place in
    /// the tensor of all of them, if it has one.
    pub fn in_all_experts(&self, tensor: &str) -> Option<(&str, Option<Place>)> {
        let is_below = |list: &str| {
            let rest = tensor.strip_prefix(list);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        let mut lists = self.gathered.iter();
        let mut lists = lists.by_ref().filter_map(|gathered| {
            let list = gathered.list().filter(|list| is_below(list))?;
            Some((list, gathered.place(tensor)))
        });
        let first = lists.next()?;
        match first.1 {
            Some(_) => Some(first),
            None => lists.find(|(_, place)| place.is_some()).or(Some(first)),
        }
    }

    /// Tensors that files may have in the place of those of layers.
    pub(crate) fn gathered(&self) -> &[Gathered] {
        &self.gathered
    }

    /// Whether a tensor is one of the model's, or stands for some of them.
    pub(crate) fn reads(&self, tensor: &str) -> bool {
        let stands = |gathered: &Gathered| gathered.stands_for(tensor);
        self.has(tensor) || self.gathered.iter().any(stands)
    }

    /// Where a tensor would be in a list of blocks, of which the model has some: its number.
    pub(crate) fn block(&self, tensor: &str) -> Option<usize> {
        let mut path = String::new();
        for part in tensor.split('.') {
            if let Ok(number) = part.parse() {
                let first = format!("{path}0.");
                let mut from = self.index.range(first.clone()..);
                if from
                    .next()
                    .is_some_and(|(path, _)| path.starts_with(&first))
                {
                    return Some(number);
                }
            }
            path += part;
            path.push('.');
        }
        None
    }

    /// The module path of the table that the head shares, if it is not stored.
    pub fn tied_table(&self) -> Option<&str> {
        self.layer(self.names.head)?.tied_to.as_deref()
    }

    /// The same model with a head of its own.
    #[must_use]
    pub fn untied(&self) -> Self {
        let mut own = self.clone();
        own.config.tie_word_embeddings = false;
        for layer in &mut own.layers {
            layer.tied_to = None;
        }
        own
    }

    /// Makes the body from what `origin` has.
    pub(crate) fn build(&self, origin: &dyn Origin) -> Result<AnyBody> {
        let loader = Loader::new(origin, self.names.base);
        self.blueprint.build(&self.config, &loader)
    }
}
