//! A checkpoint with a single layer, to be damaged.

use std::collections::BTreeMap;
use std::path::Path;

use qoft_core::{Checkpoint, Dtype, NewTensor};
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A folder in memory, if the system has such.
pub(crate) fn folder() -> TempDir {
    const IN_MEMORY: &str = "/dev/shm";
    let folder = tempfile::tempdir_in(IN_MEMORY).or_else(|_| tempfile::tempdir());
    folder.expect("a temporary folder")
}

/// A tensor on its own.
#[derive(Debug, Clone)]
pub(crate) struct FileTensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// The tensors of one layer and of its neighbours in the same module, and the quantization's
/// configuration.
#[derive(Debug, Clone)]
pub(crate) struct LayerFile {
    pub path: String,
    pub config: Value,
    pub tensors: Vec<FileTensor>,
    /// What the file says of its tensors.
    pub metadata: BTreeMap<String, String>,
}

impl LayerFile {
    /// Copies a layer out of a checkpoint with this configuration.
    pub fn new(checkpoint: &Checkpoint, quantization: Option<&Value>, path: &str) -> Self {
        let mut config = Map::new();
        if let Some(quantization) = quantization {
            config.insert("quantization_config".into(), quantization.clone());
        }
        let parent = path.rsplit_once('.').map_or(path, |(parent, _)| parent);
        let names = checkpoint.under(parent);
        let tensors = names
            .filter_map(|name| checkpoint.get(name))
            .map(|tensor| FileTensor {
                name: tensor.name().to_owned(),
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
                bytes: tensor.bytes().to_vec(),
            });
        Self {
            path: path.to_owned(),
            config: Value::Object(config),
            tensors: tensors.collect(),
            metadata: checkpoint.metadata().clone(),
        }
    }

    /// Positions of the layer's own tensors.
    pub fn own(&self) -> Vec<usize> {
        let prefix = format!("{}.", self.path);
        let own = |at: &usize| self.tensors[*at].name.starts_with(&prefix);
        (0..self.tensors.len()).filter(own).collect()
    }

    /// What the file says of the layer's own parameters.
    pub fn about_it(&self) -> Vec<(&str, &str)> {
        let prefix = format!("{}.", self.path);
        let all = self
            .metadata
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix));
        all.map(|(key, text)| (key.as_str(), text.as_str()))
            .collect()
    }

    /// Writes a checkpoint folder; `None` if safetensors cannot hold such tensors.
    pub fn write(&self, folder: &Path) -> Option<()> {
        let views = self.tensors.iter().map(|t| {
            let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).ok()?;
            Some((t.name.as_str(), view))
        });
        let views = views.collect::<Option<Vec<_>>>()?;
        let metadata = self.metadata.clone().into_iter().collect();
        let bytes = safetensors::serialize(views, Some(metadata)).ok()?;
        std::fs::write(folder.join("model.safetensors"), bytes).expect("a writable folder");
        std::fs::write(folder.join("config.json"), self.config.to_string())
            .expect("a writable folder");
        Some(())
    }

    /// A layer of new tensors alone, under a `quantization_config`.
    pub fn of_new(
        path: &str,
        quantization: &Value,
        metadata: BTreeMap<String, String>,
        tensors: Vec<NewTensor>,
    ) -> Self {
        let tensors = tensors.into_iter().map(|tensor| FileTensor {
            name: tensor.name(),
            dtype: tensor.dtype,
            shape: tensor.shape,
            bytes: tensor.bytes,
        });
        Self {
            path: path.to_owned(),
            config: json!({ "quantization_config": quantization }),
            tensors: tensors.collect(),
            metadata,
        }
    }

    /// Writes a folder, opens it and hands the checkpoint to `f`; `None` if safetensors cannot hold
    /// such tensors.
    pub fn with<T>(&self, f: impl FnOnce(&Checkpoint) -> T) -> Option<T> {
        let folder = folder();
        self.write(folder.path())?;
        let checkpoint = Checkpoint::open(folder.path()).ok()?;
        Some(f(&checkpoint))
    }
}
