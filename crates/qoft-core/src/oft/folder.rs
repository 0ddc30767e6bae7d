//! Saved adapters as PEFT writes them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use qoft_kernels::Matrix;

use super::config::OftConfig;
use super::rotation::{OftRotation, RotationSettings};
use crate::adapter::param_id;
use crate::error::{Error, Result};
use crate::layer::{Layer, LayerKind};
use crate::peft::{self, CONFIG, PREFIX, Tensors, WEIGHTS};

/// Name below a layer under which PEFT saves the frozen weight of an adapted embedding.
const BASE_WEIGHT: &str = "base_layer.weight";

/// A saved adapter, read but not attached.
#[derive(Debug, Clone)]
pub struct AdapterFolder {
    config: OftConfig,
    file: PathBuf,
    values: Tensors,
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
        let folder = Self {
            config,
            values: peft::read_tensors(&file)?,
            file,
        };
        match folder.values.keys().find(|key| key.contains(".oft_r.")) {
            None => Ok(folder),
            Some(key) => Err(folder.error(format!(
                "`{PREFIX}{key}`: an adapter from before PEFT 0.14, whose rotations were \
                 parametrized otherwise and cannot be converted; train it again"
            ))),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &OftConfig {
        &self.config
    }

    /// Paths of the layers that it has a rotation for, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.values.keys().filter_map(|key| layer_of(key))
    }

    /// Whether its rotation at `path` is one for an embedding table.
    pub fn is_embedding(&self, path: &str) -> bool {
        self.has(path, LayerKind::Embedding)
    }

    /// The table of the embedding at `path`, `[entries, width]`, which PEFT saves with an adapter
    /// of it.
    pub fn base_weight(&self, path: &str) -> Option<Matrix> {
        let (shape, values) = self.values.get(&format!("{path}.{BASE_WEIGHT}"))?;
        Some(Matrix {
            shape: shape.as_slice().try_into().ok()?,
            values: values.clone(),
        })
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
        let kind = if self.is_embedding(path) {
            LayerKind::Embedding
        } else {
            LayerKind::Linear
        };
        let param = OftRotation::param_name(kind);
        let key = format!("{path}.{param}");
        let (shape, values) = self.values.get(&key).ok_or_else(|| self.missing(&key))?;
        let expected = settings.shape();
        if shape[..] != expected {
            let reason = format!("`{PREFIX}{key}`: expected shape {expected:?}, found {shape:?}");
            return Err(self.error(reason));
        }
        let id = param_id(adapter, path, param);
        Ok(OftRotation::new(settings, values.clone(), id, device).for_kind(kind))
    }

    /// Fails unless its rotation of the layer at `path` is for layers of this kind, with the
    /// weight that this one has.
    pub(super) fn check_layer(&self, path: &str, layer: &dyn Layer) -> Result<()> {
        if !self.has(path, layer.kind()) {
            let param = OftRotation::param_name(layer.kind());
            return Err(self.missing(&format!("{path}.{param}")));
        }
        match self.base_weight(path) {
            Some(_) => self.check_base_weight(path, &layer.base_weight()),
            None => Ok(()),
        }
    }

    /// Fails if the adapter was saved with the weight of the layer at `path`, and `weight` is
    /// another one.
    ///
    /// # Errors
    /// The error names the saved weight.
    pub fn check_base_weight(&self, path: &str, weight: &Matrix) -> Result<()> {
        match self.base_weight(path) {
            Some(saved) if !same_weight(&saved, weight) => {
                let reason = "the adapter was trained on another weight than the model's";
                Err(self.error(format!("`{PREFIX}{path}.{BASE_WEIGHT}`: {reason}")))
            }
            _ => Ok(()),
        }
    }

    fn has(&self, path: &str, kind: LayerKind) -> bool {
        let key = format!("{path}.{}", OftRotation::param_name(kind));
        self.values.contains_key(&key)
    }

    /// Fails if it has a value for a layer that is not among `layers`.
    ///
    /// # Errors
    /// The error names the first such value.
    pub fn check_unused(&self, layers: &BTreeSet<String>) -> Result<()> {
        let used = |key: &&String| {
            let weight = key.strip_suffix(BASE_WEIGHT);
            let weight = weight.and_then(|path| path.strip_suffix('.'));
            let path = layer_of(key).or(weight);
            path.is_some_and(|path| layers.contains(path))
        };
        match self.values.keys().find(|key| !used(key)) {
            None => Ok(()),
            Some(key) => {
                let reason = format!("`{PREFIX}{key}` belongs to no targeted layer of the model");
                Err(self.error(reason))
            }
        }
    }

    /// Fails if it has no rotation for one of `layers`.
    ///
    /// # Errors
    /// The error names the first such layer's value.
    pub fn check_complete(&self, layers: &BTreeSet<String>) -> Result<()> {
        let adapted: BTreeSet<&str> = self.paths().collect();
        match layers.iter().find(|path| !adapted.contains(path.as_str())) {
            None => Ok(()),
            Some(path) => Err(self.missing(&format!("{path}.{}", OftRotation::PARAM))),
        }
    }

    fn missing(&self, key: &str) -> Error {
        self.error(format!("`{PREFIX}{key}` is missing"))
    }

    fn error(&self, reason: String) -> Error {
        Error::Adapter {
            path: self.file.clone(),
            reason,
        }
    }
}

/// The layer whose rotation this is.
fn layer_of(key: &str) -> Option<&str> {
    let names = [OftRotation::PARAM, OftRotation::EMBEDDING_PARAM];
    let mut found = names.iter().filter_map(|name| key.strip_suffix(name));
    found.next()?.strip_suffix('.')
}

/// Whether two weights are the same but for the rounding of their dtypes.
fn same_weight(a: &Matrix, b: &Matrix) -> bool {
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= a.abs() / 256.0 + 1e-6;
    a.shape == b.shape && a.values.iter().zip(&b.values).all(close)
}
