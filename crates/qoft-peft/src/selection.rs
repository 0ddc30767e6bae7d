//! What a configuration means for a layer: a rotation, a bias, or the whole module.

use std::collections::{BTreeMap, BTreeSet};

use qoft_core::{BIAS, Error, Layer, LayerKind, LayerTensor, Result, WEIGHT};

use crate::common::OneOrMany;
use crate::facts::ModelFacts;
use crate::family::AdapterConfig;
use crate::folder::AdapterFolder;
use crate::modules::{ModuleKind, Modules, module};
use crate::saved_modules::Endings;
use crate::targets::{Targets, match_nothing};

/// The choice of what trains in a model.
#[derive(Debug)]
pub struct Selection<'a> {
    target_modules: OneOrMany,
    rotated: BTreeMap<String, LayerKind>,
    bias: Biases,
    whole: Endings<'a>,
    /// Names of tensors that are saved with the adapter, and that its configuration does not name.
    saved: BTreeSet<String>,
    /// Paths of layers that are modules in PEFT's model, under other paths, and these.
    elsewhere: BTreeMap<String, String>,
    /// Paths of layers that are parts of parameters there, whose biases are none for `bias`.
    parts: BTreeSet<String>,
}

#[derive(Debug, PartialEq)]
enum Biases {
    None,
    All,
    OfTargets,
}

impl<'a> Selection<'a> {
    /// What a configuration means in a model with these modules, with the model's default targets.
    ///
    /// # Errors
    /// If an expression is invalid or takes too long, options contradict each other, there is no
    /// default, no module is meant, or one that cannot have what it is meant to have.
    pub fn new(
        config: &'a dyn AdapterConfig,
        facts: ModelFacts,
        modules: &Modules,
    ) -> Result<Self> {
        Self::checked(Self::of(config, facts, modules)?, config, modules)
    }

    /// What the configuration of a saved adapter means.
    ///
    /// If the vocabulary of its model had been changed, PEFT has saved the embedding and the output head
    /// with it, which no key of the configuration says. Experts get a rotation if the file has one for
    /// them: for older versions of transformers they were modules like others.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_saved(
        folder: &'a AdapterFolder,
        facts: ModelFacts,
        modules: &Modules,
    ) -> Result<Self> {
        let config = &**folder.config();
        let mut found = Self::of(config, facts, modules)?;
        let embedding = ModuleKind::Layer(LayerKind::Embedding);
        for (path, kind) in modules.iter() {
            if kind == embedding || path == modules.head() {
                let names = [WEIGHT, BIAS].map(|name| format!("{path}.{name}"));
                let saved = names.into_iter();
                found
                    .saved
                    .extend(saved.filter(|name| folder.own().contains_key(name)));
            }
        }
        let stored: BTreeSet<&str> = folder.paths().collect();
        for (path, _) in modules.parameters() {
            if stored.contains(path) {
                found.rotated.insert(path.to_owned(), LayerKind::Linear);
            }
        }
        Self::checked(found, config, modules)
    }

    fn of(config: &'a dyn AdapterConfig, facts: ModelFacts, modules: &Modules) -> Result<Self> {
        let common = config.common();
        let targets = Targets::new(common, facts, modules)?;
        let mut rotated = BTreeMap::new();
        for (path, kind) in modules.iter() {
            if targets.matches(path)? {
                rotated.insert(path.to_owned(), rotatable(config, path, kind)?);
            }
        }
        for (path, parameter) in modules.parameters() {
            if targets.matches_part(path, parameter)? {
                let kind = ModuleKind::Layer(LayerKind::Linear);
                rotated.insert(path.to_owned(), rotatable(config, path, kind)?);
            }
        }
        Ok(Self {
            target_modules: targets.target_modules().clone(),
            rotated,
            bias: match common.bias.as_str() {
                "none" => Biases::None,
                "all" => Biases::All,
                _ => Biases::OfTargets,
            },
            whole: Endings::new(common.modules_to_save()),
            saved: BTreeSet::new(),
            elsewhere: modules
                .elsewhere()
                .map(|(path, module)| (path.to_owned(), module.to_owned()))
                .collect(),
            parts: modules
                .parameters()
                .filter(|(_, parameter)| module(parameter).is_none())
                .map(|(path, _)| path.to_owned())
                .collect(),
        })
    }

    /// Fails if no module is meant, or one that cannot have what it is meant to have.
    fn checked(found: Self, config: &dyn AdapterConfig, modules: &Modules) -> Result<Self> {
        if found.rotated.is_empty() {
            return Err(match_nothing(config.common(), modules));
        }
        for (path, kind) in modules.iter() {
            if found.whole.mean(path) {
                expect_one_part(path, kind, found.rotates(path))?;
            }
        }
        Ok(found)
    }

    /// The names or the expression that `target_modules` comes to.
    pub fn target_modules(&self) -> &OneOrMany {
        &self.target_modules
    }

    /// The layers that get a rotation, by their paths.
    pub fn rotated(&self) -> &BTreeMap<String, LayerKind> {
        &self.rotated
    }

    /// Whether the layer gets a rotation.
    pub fn rotates(&self, path: &str) -> bool {
        self.rotated.contains_key(path)
    }

    /// Whether the layer trains whole, by itself or as part of a larger module. As in PEFT a name
    /// means all modules whose paths end with it.
    pub fn is_whole(&self, path: &str) -> bool {
        let elsewhere = self.elsewhere.get(path);
        self.whole.include(path) || elsewhere.is_some_and(|path| self.whole.include(path))
    }

    /// Whether the tensor `name` of the layer at `path` is saved with the adapter, though it did not
    /// train.
    pub fn is_saved(&self, path: &str, name: &str) -> bool {
        self.saved.contains(&format!("{path}.{name}"))
    }

    /// The tensors that the adapter has for the layer at `path` instead of the layer's.
    ///
    /// # Errors
    /// If one of them is quantized.
    pub fn own(&self, path: &str, layer: &dyn Layer) -> Result<Vec<LayerTensor>> {
        let mut tensors = layer.tensors();
        if !self.is_whole(path) {
            let trains = self.trains_bias(path);
            tensors.retain(|t| (trains && t.name == BIAS) || self.is_saved(path, t.name));
        }
        match tensors.iter().find(|tensor| !tensor.dense) {
            None => Ok(tensors),
            Some(tensor) => Err(quantized(&format!("{path}.{}", tensor.name))),
        }
    }

    /// Whether the bias of the layer at `path` trains, if the layer does not train whole.
    pub fn trains_bias(&self, path: &str) -> bool {
        match self.bias {
            Biases::None => false,
            Biases::All => !self.parts.contains(path),
            Biases::OfTargets => self.rotates(path),
        }
    }
}

/// The kind of a layer; fails unless the family has a rotation for it.
fn rotatable(config: &dyn AdapterConfig, path: &str, kind: ModuleKind) -> Result<LayerKind> {
    match kind {
        ModuleKind::Layer(kind) if !config.param_names(kind).is_empty() => Ok(kind),
        _ => {
            let reason = format!(
                "`{path}` is meant, too, which is {}: {} has no rotation for it; name other \
                 layers, or exclude it (exclude_modules)",
                kind.name(),
                config.peft_type()
            );
            Err(not_possible("target_modules", reason))
        }
    }
}

/// Fails if PEFT could not train a module whole.
fn expect_one_part(path: &str, kind: ModuleKind, is_rotated: bool) -> Result<()> {
    if kind == ModuleKind::List {
        let reason = format!("`{path}` is a list of modules; name the modules in it");
        return Err(not_possible("modules_to_save", reason));
    }
    if is_rotated {
        let reason = format!(
            "`{path}` is meant, whose path ends so, and it gets a rotation; exclude it \
             (exclude_modules), or give a longer name"
        );
        return Err(not_possible("modules_to_save", reason));
    }
    Ok(())
}

fn not_possible(key: &str, reason: String) -> Error {
    Error::config("adapter configuration").key(key, reason)
}

/// The error about a tensor of a module that is to be trained whole.
pub fn quantized(tensor: &str) -> Error {
    let reason = format!(
        "`{tensor}` is quantized, so it cannot be trained whole; let the layer have a rotation \
         (target_modules), or dequantize the model before"
    );
    not_possible("modules_to_save", reason)
}
