//! Attaching adapters to a model: new ones, and those of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use tracing::warn;

use crate::common::CommonConfig;
use crate::facts::ModelFacts;
use crate::family::AdapterConfig;
use crate::folder::AdapterFolder;
use crate::modules::{Modules, last};
use crate::registry::Families;
use crate::saved_modules::Endings;
use crate::selection::Selection;
use crate::site::Site;
use crate::targets::unknown_names;
use qoft_core::{
    AdapterParam, AdapterSlot, Error, Layer, LayerKind, LayerTensor, OftAdapter, OwnTensor,
    ParamPlace, Random, Result, WEIGHT, Walk, adapters,
};

/// Adds a new adapter to each layer that the configuration means; returns how many layers got a
/// rotation.
///
/// Rotations start as their family has it, and what is random in that follows from `seed`. Biases
/// and whole modules start from the model's. All of them train if `device` is an autodiff device.
///
/// # Errors
/// If the configuration has an impossible value, no layer is targeted, a module that is to be trained whole is quantized or absent, or the
/// model has an adapter of this name. Then the model stays as it is.
pub fn attach(
    model: &mut impl Walk,
    config: &dyn AdapterConfig,
    facts: ModelFacts,
    adapter: &str,
    seed: u64,
    device: &Device,
) -> Result<usize> {
    config.validate("adapter configuration")?;
    if config.to_json()["fan_in_fan_out"] == true {
        warn!("fan_in_fan_out is not needed: the model says which weights are [in, out]");
    }
    let new = Attachment {
        config,
        source: Source::New { seed },
        adapter,
        device,
    };
    let count = new.attach(model, facts)?;
    let mut adjusted = BTreeMap::new();
    for (path, layer) in model.layers() {
        let slot = layer.adapters().get(adapter);
        if slot.is_some_and(|slot| slot.rotation().is_some()) {
            let note = config.adjustment(&Site::of(&path, layer));
            adjusted.extend(note.map(|note| (layer.in_features(), note)));
        }
    }
    for (in_features, message) in adjusted {
        warn!("in_features {in_features}: {message}");
    }
    warn_of_ties(model, adapter);
    Ok(count)
}

/// Attaches a saved adapter of one of these families; returns its configuration.
///
/// # Errors
/// If the folder is damaged, of another family, or does not fit the model. Then the model stays as
/// it is.
pub fn load(
    model: &mut impl Walk,
    folder: &Path,
    families: &Families,
    facts: ModelFacts,
    adapter: &str,
    device: &Device,
) -> Result<Arc<dyn AdapterConfig>> {
    let folder = AdapterFolder::open(folder, families)?;
    attach_folder(model, &folder, 1.0, facts, adapter, device)?;
    Ok(folder.config().clone())
}

/// As [`load`], for a folder that was read before, and with a strength: 0 is none of the adapter
/// and 1 all of it.
///
/// # Errors
/// If the adapter does not fit the model, or its family has no such strength.
pub fn attach_folder(
    model: &mut impl Walk,
    folder: &AdapterFolder,
    strength: f64,
    facts: ModelFacts,
    adapter: &str,
    device: &Device,
) -> Result<()> {
    let own = folder.of_model(facts);
    let folder = own.as_ref().unwrap_or(folder);
    let folder = folder.named_as_in(&Modules::of(model, facts.head))?;
    let saved = Attachment {
        config: &**folder.config(),
        source: Source::Saved {
            folder: &folder,
            strength,
        },
        adapter,
        device,
    };
    saved.attach(model, facts).map(drop)
}

/// An adapter on its way to a model.
struct Attachment<'a> {
    config: &'a dyn AdapterConfig,
    source: Source<'a>,
    adapter: &'a str,
    device: &'a Device,
}

/// Where the values of an adapter come from.
enum Source<'a> {
    New {
        seed: u64,
    },
    Saved {
        folder: &'a AdapterFolder,
        strength: f64,
    },
}

impl Attachment<'_> {
    /// What does not fit is noticed before anything is attached.
    fn attach(&self, model: &mut impl Walk, facts: ModelFacts) -> Result<usize> {
        adapters::expect_free(model, self.adapter)?;
        let modules = Modules::of(model, facts.head);
        let selection = match self.source {
            Source::New { .. } => Selection::new(self.config, facts, &modules)?,
            Source::Saved { folder, .. } => Selection::of_saved(folder, facts, &modules)?,
        };
        let (mut slots, own_names) = self.collect(model, &selection)?;
        match self.source {
            Source::Saved { folder, .. } => folder.check_unused(selection.rotated(), &own_names)?,
            Source::New { .. } => {
                self.check_modules(model)?;
                warn_of_unknown(self.config.common(), &modules);
            }
        }
        let mut result = Ok(());
        model.walk_mut("", &mut |path, layer| {
            if let Some(slot) = slots.remove(path)
                && let Err(error) = layer.adapters_mut().push_slot(slot)
            {
                result = Err(error);
            }
        });
        result.map(|()| selection.rotated().len())
    }

    /// Makes what each layer gets; beside it, the names of the tensors that it has of its own.
    fn collect(
        &self,
        model: &impl Walk,
        selection: &Selection,
    ) -> Result<(BTreeMap<String, AdapterSlot>, BTreeSet<String>)> {
        let (mut slots, mut own_names) = (BTreeMap::new(), BTreeSet::new());
        let mut no_biases = false;
        for (path, layer) in model.layers() {
            let mut own = Vec::new();
            for tensor in selection.own(&path, layer)? {
                let whole = selection.is_whole(&path) || selection.is_saved(&path, tensor.name);
                own_names.insert(format!("{path}.{}", tensor.name));
                match self.own(&path, layer, tensor, whole)? {
                    Some(tensor) => own.push(tensor),
                    None => no_biases = true,
                }
            }
            if own.iter().any(|own| own.name() == WEIGHT) {
                layer.adapters().expect_no_own_weight(self.adapter)?;
            }
            let rotation = match selection.rotates(&path) {
                true => Some(self.rotation(&path, layer)?),
                false => None,
            };
            if rotation.is_some() || !own.is_empty() {
                let slot = AdapterSlot::from_parts(self.adapter, rotation, own);
                slots.insert(path, slot);
            }
        }
        if no_biases {
            warn!(
                "adapter `{}`: `bias` is `{}`, but its file has no biases; those of the model count",
                self.adapter,
                self.config.common().bias
            );
        }
        Ok((slots, own_names))
    }

    fn rotation(&self, path: &str, layer: &dyn Layer) -> Result<Box<dyn OftAdapter>> {
        let (config, site) = (self.config, Site::of(path, layer));
        let seed = match self.source {
            Source::New { seed } => seed,
            Source::Saved { folder, strength } => {
                folder.check_layer(path, layer)?;
                return folder.rotation(&site, strength, self.adapter, self.device);
            }
        };
        let names = config.param_names(site.kind).iter();
        let params = names.zip(config.param_shapes(&site)?).map(|(name, shape)| {
            let id = ParamPlace::of_adapter(self.adapter)
                .at(path)
                .named(name)
                .id();
            let random = Random::keyed(&[seed, id.val()]);
            let values = config.initial_values(&site, name, &shape, random);
            AdapterParam::new(name, shape, values, id, self.device)
        });
        config.rotation(&site, 1.0, params.collect())
    }

    fn own(
        &self,
        path: &str,
        layer: &dyn Layer,
        tensor: LayerTensor,
        whole: bool,
    ) -> Result<Option<OwnTensor>> {
        let (name, owner) = (tensor.name, [self.adapter, path]);
        let new = |tensor, values| OwnTensor::new(tensor, values, whole, owner, self.device);
        match self.source {
            Source::New { .. } => Ok(Some(new(tensor, layer.values(name)))),
            Source::Saved { folder, strength } => {
                let saved = folder.own_values(&format!("{path}.{name}"), &tensor.shape)?;
                Ok(saved.map(|saved| {
                    let values = tensor.read(saved.values.clone());
                    match strength {
                        1.0 => new(tensor, values),
                        _ => new(tensor, values).with_strength(strength, layer.values(name)),
                    }
                }))
            }
        }
    }

    /// Fails if a new adapter is to train a module whole that the model does not have.
    fn check_modules(&self, model: &impl Walk) -> Result<()> {
        let layers = model.layers();
        let paths = layers.iter().map(|(path, _)| path.as_str());
        let modules = Modules::of(model, "");
        let elsewhere = modules.elsewhere().map(|(_, module)| module);
        let names = self.config.common().modules_to_save();
        let meaningless = Endings::new(names).meaningless(paths.clone().chain(elsewhere));
        match names
            .iter()
            .find(|name| meaningless.contains(name.as_str()))
        {
            None => Ok(()),
            Some(wanted) => {
                let known: BTreeSet<&str> = paths.map(last).collect();
                Err(Error::NoModule {
                    wanted: wanted.clone(),
                    known: known.into_iter().collect::<Vec<_>>().join(", "),
                })
            }
        }
    }
}

/// Says which targets mean nothing beside others that do: PEFT does not, and one may be misspelt.
fn warn_of_unknown(config: &CommonConfig, modules: &Modules) {
    let unknown = unknown_names(config, modules);
    if !unknown.is_empty() {
        warn!(
            "target_modules: the model has no {}; its layers are {}",
            unknown.join(", "),
            modules.known()
        );
    }
}

/// Says that tied weights do not stay so when one of them trains by itself.
fn warn_of_ties(model: &impl Walk, adapter: &str) {
    let layers = model.layers();
    let Some((_, tied)) = layers.iter().find(|(_, layer)| layer.is_tied()) else {
        return;
    };
    // Other tables, such as those of positions, have other shapes.
    let table = tied.tensors().swap_remove(0);
    let shared = layers.iter().filter(|(_, layer)| {
        let is_table = layer.kind() == LayerKind::Embedding && layer.tensors()[0] == table;
        layer.is_tied() || is_table
    });
    let (trained, kept): (Vec<_>, Vec<_>) = shared.partition(|(_, layer)| {
        let slot = layer.adapters().get(adapter);
        slot.is_some_and(|slot| slot.own_named(WEIGHT).is_some())
    });
    let names = |layers: Vec<&(String, &dyn Layer)>| {
        let names: Vec<&str> = layers.iter().map(|(path, _)| path.as_str()).collect();
        names.join(", ")
    };
    match (trained.is_empty(), kept.is_empty()) {
        (true, _) => (),
        (false, true) => warn!(
            "{} share one weight in this model; the adapter trains a copy for each",
            names(trained)
        ),
        (false, false) => warn!(
            "{} and {} share one weight in this model; the adapter trains a copy for the former, and \
             the latter keeps what it has",
            names(trained),
            names(kept)
        ),
    }
}
