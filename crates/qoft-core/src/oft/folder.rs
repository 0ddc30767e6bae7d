//! Adapter folders as PEFT reads and writes them, and attaching their rotations to a model.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use burn::module::ParamId;
use burn::tensor::Device;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tracing::warn;

use super::config::{OftConfig, OneOrMany};
use super::rotation::{OftRotation, RotationSettings, random_values};
use super::targets::Targets;
use crate::error::{Error, Result};
use crate::output::write_file;
use crate::walk::Walk;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// Adds a rotation to each targeted layer; returns how many layers got one.
///
/// Rotations start from the identity, or from random values with `init_weights: false`.
/// `head` is the path of the output head.
///
/// # Errors
/// If no layer is targeted.
pub fn attach(
    model: &mut impl Walk,
    config: &OftConfig,
    model_type: &str,
    head: &str,
    adapter: &str,
    device: &Device,
) -> Result<usize> {
    let targets = Targets::new(config, model_type)?;
    let (mut count, mut adjusted) = (0, BTreeMap::new());
    model.walk_mut("", &mut |path, linear| {
        if !targets.matches(path, path == head) {
            return;
        }
        let settings = RotationSettings::new(config, linear.in_features());
        note_adjustment(config, &settings, linear.in_features(), &mut adjusted);
        let [rows, cols] = settings.shape();
        let id = param_id(adapter, path);
        let values = if config.init_weights {
            vec![0.0; rows * cols]
        } else {
            random_values(rows * cols, id.val())
        };
        linear.push_adapter(adapter, OftRotation::new(settings, values, id, device));
        count += 1;
    });
    for (in_features, message) in adjusted {
        warn!("in_features {in_features}: {message}");
    }
    if count == 0 {
        return Err(no_target(model, config));
    }
    Ok(count)
}

/// The same for the same layer in every run, so that saved optimizer states find their layers.
fn param_id(adapter: &str, path: &str) -> ParamId {
    let mut hasher = DefaultHasher::new();
    (adapter, path).hash(&mut hasher);
    ParamId::from(hasher.finish())
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

fn no_target(model: &impl Walk, config: &OftConfig) -> Error {
    let mut known: Vec<String> = model
        .linears()
        .iter()
        .map(|(path, _)| path.rsplit('.').next().unwrap_or(path).to_owned())
        .collect();
    known.sort();
    known.dedup();
    let target = match &config.target_modules {
        None => "(default)".to_owned(),
        Some(OneOrMany::One(one)) => format!("`{one}`"),
        Some(OneOrMany::Many(many)) => format!("{many:?}"),
    };
    Error::NoTarget {
        target,
        known: known.join(", "),
    }
}

/// A saved adapter, read but not attached.
#[derive(Debug, Clone)]
pub struct AdapterFolder {
    config: OftConfig,
    file: PathBuf,
    values: Values,
}

impl AdapterFolder {
    /// Reads `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// If the folder is damaged, or of another kind.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::file(folder, "no such adapter folder"));
        }
        let config = OftConfig::read(&folder.join(CONFIG))?;
        let file = folder.join(WEIGHTS);
        let values = read_weights(&file)?;
        Ok(Self {
            config,
            file,
            values,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &OftConfig {
        &self.config
    }

    /// Paths of the layers that it has a rotation for, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let suffix = format!(".{}", OftRotation::PARAM);
        let paths = self.values.keys();
        paths.filter_map(move |key| key.strip_suffix(&suffix))
    }

    /// The rotation of the layer at `path`, with `strength` times its parameters.
    ///
    /// # Errors
    /// If there is none, or it is not made for so many input features.
    pub fn rotation(
        &self,
        path: &str,
        in_features: usize,
        strength: f64,
        adapter: &str,
        device: &Device,
    ) -> Result<OftRotation> {
        let settings = RotationSettings {
            strength,
            ..RotationSettings::new(&self.config, in_features)
        };
        let key = format!("{path}.{}", OftRotation::PARAM);
        let (shape, values) = self
            .values
            .get(&key)
            .ok_or_else(|| self.error(format!("`{PREFIX}{key}` is missing")))?;
        let expected = settings.shape();
        if shape[..] != expected {
            let reason = format!("`{PREFIX}{key}`: expected shape {expected:?}, found {shape:?}");
            return Err(self.error(reason));
        }
        let id = param_id(adapter, path);
        Ok(OftRotation::new(settings, values.clone(), id, device))
    }

    /// Fails if it has a value for a layer that is not among `layers`.
    ///
    /// # Errors
    /// The error names the first such value.
    pub fn check_unused(&self, layers: &BTreeSet<String>) -> Result<()> {
        let suffix = format!(".{}", OftRotation::PARAM);
        let used = |key: &&String| {
            key.strip_suffix(&suffix)
                .is_some_and(|path| layers.contains(path))
        };
        match self.values.keys().find(|key| !used(key)) {
            None => Ok(()),
            Some(key) => {
                let reason = format!("`{PREFIX}{key}` belongs to no targeted layer of the model");
                Err(self.error(reason))
            }
        }
    }

    fn error(&self, reason: String) -> Error {
        Error::Adapter {
            path: self.file.clone(),
            reason,
        }
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
    Ok(folder.config)
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
    let targets = Targets::new(&folder.config, model_type)?;
    let mut targeted = BTreeSet::new();
    for (path, linear) in model.linears() {
        if targets.matches(&path, path == head) {
            // What does not fit is noticed before anything is attached.
            folder.rotation(&path, linear.in_features(), strength, adapter, device)?;
            targeted.insert(path);
        }
    }
    if targeted.is_empty() {
        return Err(no_target(model, &folder.config));
    }
    folder.check_unused(&targeted)?;
    let mut result = Ok(());
    model.walk_mut("", &mut |path, linear| {
        if targeted.contains(path) {
            match folder.rotation(path, linear.in_features(), strength, adapter, device) {
                Ok(rotation) => linear.push_adapter(adapter, rotation),
                Err(error) => result = Err(error),
            }
        }
    });
    result
}

type Values = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// All tensors of an adapter file by module path.
fn read_weights(path: &Path) -> Result<Values> {
    let fail = |reason: String| Error::Adapter {
        path: path.to_path_buf(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| fail(format!("not a valid safetensors file: {e}")))?;
    let mut values = Values::new();
    for (name, tensor) in file.iter() {
        if name.contains(".oft_r.") {
            let reason = format!(
                "`{name}`: an adapter from before PEFT 0.14, whose rotations were parametrized \
                 otherwise and cannot be converted; train it again"
            );
            return Err(fail(reason));
        }
        let key = name
            .strip_prefix(PREFIX)
            .ok_or_else(|| fail(format!("`{name}` does not start with `{PREFIX}`")))?;
        let data = to_f32(&tensor)
            .ok_or_else(|| fail(format!("`{name}`: expected finite F32, F16 or BF16 values")))?;
        values.insert(key.to_owned(), (tensor.shape().to_vec(), data));
    }
    Ok(values)
}

fn to_f32(tensor: &TensorView) -> Option<Vec<f32>> {
    let format = match tensor.dtype() {
        Dtype::F32 => qoft_kernels::FloatFormat::F32,
        Dtype::F16 => qoft_kernels::FloatFormat::F16,
        Dtype::BF16 => qoft_kernels::FloatFormat::Bf16,
        _ => return None,
    };
    let mut out = vec![0.0; tensor.shape().iter().product()];
    format.decode(tensor.data(), &mut out);
    out.iter().all(|v| v.is_finite()).then_some(out)
}

/// A trained tensor: its name in the file, its shape and its values.
pub type Trained = (String, Vec<usize>, Vec<f32>);

/// The parameters of one adapter as they are saved: name, shape, values.
pub fn trained(model: &impl Walk, adapter: &str) -> Vec<Trained> {
    let mut tensors = Vec::new();
    for (path, linear) in model.linears() {
        for slot in linear.adapters().iter().filter(|s| s.name() == adapter) {
            for named in slot.adapter().params() {
                let data = named.param.val().into_data();
                let shape = data.shape().to_vec();
                let values = data.try_into_vec::<f32>().expect("parameters are f32");
                tensors.push((format!("{PREFIX}{path}.{}", named.name), shape, values));
            }
        }
    }
    tensors
}

/// Writes `adapter_config.json` and `adapter_model.safetensors` into an existing folder.
///
/// # Errors
/// If the folder cannot be written, or a value is not finite: then nothing is written.
pub fn save(model: &impl Walk, config: &OftConfig, adapter: &str, folder: &Path) -> Result<()> {
    let tensors = trained(model, adapter);
    let file = folder.join(WEIGHTS);
    if let Some((name, ..)) = tensors
        .iter()
        .find(|(.., v)| v.iter().any(|v| !v.is_finite()))
    {
        let reason = format!("`{name}` has values that are infinite or not a number");
        return Err(Error::Adapter { path: file, reason });
    }
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(n, s, v)| (n, s, v.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("bytes fit the shape");
        (name.as_str(), view)
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let data = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::file(&file, e))?;
    write_file(&file, &data)?;
    let config = OftConfig {
        inference_mode: true,
        ..config.clone()
    };
    let mut text = serde_json::to_string_pretty(&config).expect("a plain struct");
    text.push('\n');
    write_file(&folder.join(CONFIG), text.as_bytes())
}
