//! Attaching rotations to a model: new ones, and those of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::Device;
use tracing::warn;

use super::config::OftConfig;
use super::folder::AdapterFolder;
use super::rotation::{OftRotation, RotationSettings, random_values};
use super::targets::{TargetRules, Targets};
use crate::adapter::param_id;
use crate::adapters;
use crate::error::Result;
use crate::peft;
use crate::walk::Walk;

/// Adds a rotation to each targeted layer; returns how many layers got one.
///
/// Rotations start from the identity, or from random values with `init_weights: false`.
/// `head` is the path of the output head.
///
/// # Errors
/// If no layer is targeted, or the model has an adapter of this name.
pub fn attach(
    model: &mut impl Walk,
    config: &OftConfig,
    model_type: &str,
    head: &str,
    adapter: &str,
    device: &Device,
) -> Result<usize> {
    adapters::expect_free(model, adapter)?;
    if config.fan_in_fan_out {
        warn!("fan_in_fan_out is not needed: the model says which weights are [in, out]");
    }
    let targets = Targets::new(config, model_type)?;
    let (mut result, mut count, mut adjusted) = (Ok(()), 0, BTreeMap::new());
    model.walk_mut("", &mut |path, layer| {
        if !targets.matches(path, layer.kind(), path == head) {
            return;
        }
        let settings = RotationSettings::new(config, layer.in_features());
        note_adjustment(config, &settings, layer.in_features(), &mut adjusted);
        let [rows, cols] = settings.shape();
        let id = param_id(adapter, path, OftRotation::param_name(layer.kind()));
        let values = if config.init_weights {
            vec![0.0; rows * cols]
        } else {
            random_values(rows * cols, id.val())
        };
        let rotation = OftRotation::new(settings, values, id, device).for_kind(layer.kind());
        if let Err(error) = layer.adapters_mut().push(adapter, rotation) {
            result = Err(error);
        }
        count += 1;
    });
    result?;
    for (in_features, message) in adjusted {
        warn!("in_features {in_features}: {message}");
    }
    if count == 0 {
        return Err(TargetRules::from(config).match_nothing(model));
    }
    Ok(count)
}

fn note_adjustment(
    config: &OftConfig,
    settings: &RotationSettings,
    in_features: usize,
    notes: &mut BTreeMap<usize, String>,
) {
    if config.r == 0 && settings.size != config.oft_block_size {
        let message = format!(
            "oft_block_size {} adjusted to {}",
            config.oft_block_size, settings.size
        );
        notes.insert(in_features, message);
    } else if config.r != 0 && in_features / settings.size != config.r {
        let message = format!("r {} adjusted to {}", config.r, in_features / settings.size);
        notes.insert(in_features, message);
    }
}

/// Attaches a saved adapter; returns its configuration.
///
/// # Errors
/// If the folder is damaged, of another kind, or does not fit the model.
pub fn load(
    model: &mut impl Walk,
    folder: &Path,
    model_type: &str,
    head: &str,
    adapter: &str,
    device: &Device,
) -> Result<OftConfig> {
    let folder = AdapterFolder::open(folder)?;
    attach_folder(model, &folder, 1.0, model_type, head, adapter, device)?;
    Ok(folder.config().clone())
}

/// As [`load`], for a folder that was read before, and with a strength: the rotation is that of
/// `strength` times the parameters, so 0 is none and 1 all of it.
///
/// # Errors
/// If the adapter does not fit the model.
pub fn attach_folder(
    model: &mut impl Walk,
    folder: &AdapterFolder,
    strength: f64,
    model_type: &str,
    head: &str,
    adapter: &str,
    device: &Device,
) -> Result<()> {
    adapters::expect_free(model, adapter)?;
    let targets = Targets::new(folder.config(), model_type)?;
    let mut rotations = BTreeMap::new();
    for (path, layer) in model.layers() {
        if targets.matches(&path, layer.kind(), path == head) {
            // What does not fit is noticed before anything is attached.
            folder.check_layer(&path, layer)?;
            let in_features = layer.in_features();
            let rotation = folder.rotation(&path, in_features, strength, adapter, device)?;
            rotations.insert(path, rotation);
        }
    }
    if rotations.is_empty() {
        return Err(TargetRules::from(folder.config()).match_nothing(model));
    }
    folder.check_unused(&rotations.keys().cloned().collect::<BTreeSet<_>>())?;
    let mut result = Ok(());
    model.walk_mut("", &mut |path, layer| {
        if let Some(rotation) = rotations.remove(path)
            && let Err(error) = layer.adapters_mut().push(adapter, rotation)
        {
            result = Err(error);
        }
    });
    result
}

/// Writes `adapter_config.json` and `adapter_model.safetensors` into an existing folder.
///
/// # Errors
/// If there is no such adapter, the folder cannot be written, or a value is not finite: then
/// nothing is written.
pub fn save(model: &impl Walk, config: &OftConfig, adapter: &str, folder: &Path) -> Result<()> {
    let config = OftConfig {
        inference_mode: true,
        ..config.clone()
    };
    peft::save(model, &config, adapter, folder)
}
