//! Attaching reflections to a model: new ones, and those of a PEFT folder.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use qoft_core::oft::Targets;
use qoft_core::peft::{self, CONFIG, PREFIX, WEIGHTS};
use qoft_core::{Error, LayerKind, Result, Walk, adapters, param_id};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::HraConfig;
use crate::rotation::HraRotation;

/// Adds an adapter to each targeted layer; returns how many layers got one.
///
/// `head` is the path of the output head. The adapter trains on an autodiff device.
///
/// # Errors
/// If no layer is targeted, or one is an embedding, which HRA does not know; or the model has an
/// adapter of this name.
pub fn attach(
    model: &mut impl Walk,
    config: &HraConfig,
    model_type: &str,
    head: &str,
    adapter: &str,
    device: &Device,
) -> Result<usize> {
    config.validate("adapter configuration")?;
    let make = |path: &str, features: usize| {
        let id = param_id(adapter, path, HraRotation::PARAM);
        let values = first_values(config, features, id.val());
        let shape = [features, config.r];
        Ok(HraRotation::new(values, shape, config.apply_gs, id, device))
    };
    push(model, config, model_type, head, adapter, make)
}

/// PEFT's start: Kaiming's uniform values, each column twice so that the reflections cancel. An
/// odd number of them cannot, and columns that are to be orthogonal must differ.
fn first_values(config: &HraConfig, features: usize, seed: u64) -> Vec<f32> {
    let pairs = config.init_weights && config.r.is_multiple_of(2) && !config.apply_gs;
    let copies = if pairs { 2 } else { 1 };
    let columns = config.r / copies;
    let bound = 1.0 / (columns as f32).sqrt();
    let mut random = StdRng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(features * config.r);
    for _ in 0..features * columns {
        let value = random.random_range(-bound..bound);
        values.extend(std::iter::repeat_n(value, copies));
    }
    values
}

/// Attaches the adapter of a PEFT folder; returns its configuration.
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
) -> Result<HraConfig> {
    let config = HraConfig::read(&folder.join(CONFIG))?;
    let file = folder.join(WEIGHTS);
    let mut tensors = peft::read_tensors(&file)?;
    let fail = |reason: String| Error::Adapter {
        path: file.clone(),
        reason,
    };
    let mut rotations = BTreeMap::new();
    for path in targeted(model, &config, model_type, head)? {
        let key = format!("{path}.{}", HraRotation::PARAM);
        let tensor = tensors.remove(&key);
        let tensor = tensor.ok_or_else(|| fail(format!("`{PREFIX}{key}` is missing")))?;
        rotations.insert(path, tensor);
    }
    if let Some(key) = tensors.keys().next() {
        let reason = format!("`{PREFIX}{key}` belongs to no targeted layer of the model");
        return Err(fail(reason));
    }
    let make = |path: &str, features: usize| {
        let (found, values) = rotations.remove(path).unwrap_or_default();
        let shape = [features, config.r];
        if found != shape {
            let key = format!("{path}.{}", HraRotation::PARAM);
            let reason = format!("`{PREFIX}{key}`: expected shape {shape:?}, found {found:?}");
            return Err(fail(reason));
        }
        let id = param_id(adapter, path, HraRotation::PARAM);
        Ok(HraRotation::new(values, shape, config.apply_gs, id, device))
    };
    push(model, &config, model_type, head, adapter, make)?;
    Ok(config)
}

/// Writes `adapter_config.json` and `adapter_model.safetensors` into an existing folder.
///
/// # Errors
/// If there is no such adapter, the folder cannot be written, or a value is not finite.
pub fn save(model: &impl Walk, config: &HraConfig, adapter: &str, folder: &Path) -> Result<()> {
    let config = HraConfig {
        inference_mode: true,
        ..config.clone()
    };
    peft::save(model, &config, adapter, folder)
}

/// The paths of the targeted layers.
fn targeted(
    model: &impl Walk,
    config: &HraConfig,
    model_type: &str,
    head: &str,
) -> Result<Vec<String>> {
    let targets = Targets::from_rules(&config.rules(), model_type)?;
    let mut paths = Vec::new();
    for (path, layer) in model.layers() {
        if !targets.matches(&path, layer.kind(), path == head) {
            continue;
        }
        if layer.kind() == LayerKind::Embedding {
            let reason = format!("`{path}` is an embedding, which HRA does not know");
            return Err(Error::config(
                "adapter configuration",
                "target_modules",
                reason,
            ));
        }
        paths.push(path);
    }
    if paths.is_empty() {
        let rules = config.rules();
        return Err(rules.match_nothing(model));
    }
    Ok(paths)
}

/// Gives each targeted layer the rotation that `make` makes for its path and features. If one
/// fails, the model stays as it is.
fn push(
    model: &mut impl Walk,
    config: &HraConfig,
    model_type: &str,
    head: &str,
    adapter: &str,
    mut make: impl FnMut(&str, usize) -> Result<HraRotation>,
) -> Result<usize> {
    adapters::expect_free(model, adapter)?;
    let paths = targeted(model, config, model_type, head)?;
    let mut rotations = BTreeMap::new();
    for (path, layer) in model.layers() {
        if paths.contains(&path) {
            let rotation = make(&path, layer.in_features())?;
            rotations.insert(path, rotation);
        }
    }
    let mut result = Ok(());
    model.walk_mut("", &mut |path, layer| {
        if let Some(rotation) = rotations.remove(path)
            && let Err(error) = layer.adapters_mut().push(adapter, rotation)
        {
            result = Err(error);
        }
    });
    result.map(|()| paths.len())
}
