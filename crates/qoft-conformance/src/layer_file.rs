//! A checkpoint with a single layer, to be damaged.

use std::path::Path;

use qoft_core::{Checkpoint, Dtype, LayerSource};
use safetensors::tensor::TensorView;
use serde_json::{Map, Value};

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
}

impl LayerFile {
    /// Copies a layer out of a checkpoint.
    pub fn new(checkpoint: &Checkpoint, path: &str) -> Self {
        let mut config = Map::new();
        if let Some(quantization) = checkpoint.quantization_config() {
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
        }
    }

    /// Positions of the layer's own tensors.
    pub fn own(&self) -> Vec<usize> {
        let prefix = format!("{}.", self.path);
        let own = |at: &usize| self.tensors[*at].name.starts_with(&prefix);
        (0..self.tensors.len()).filter(own).collect()
    }

    /// Writes a checkpoint folder; `None` if safetensors cannot hold such tensors.
    pub fn write(&self, folder: &Path) -> Option<()> {
        let views = self.tensors.iter().map(|t| {
            let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).ok()?;
            Some((t.name.as_str(), view))
        });
        let views = views.collect::<Option<Vec<_>>>()?;
        let bytes = safetensors::serialize(views, None).ok()?;
        std::fs::write(folder.join("model.safetensors"), bytes).expect("a writable folder");
        std::fs::write(folder.join("config.json"), self.config.to_string())
            .expect("a writable folder");
        Some(())
    }

    /// Writes a folder, opens it and hands the layer to `f`.
    pub fn with<T>(&self, f: impl FnOnce(&LayerSource) -> T) -> Option<T> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        self.write(folder.path())?;
        let checkpoint = Checkpoint::open(folder.path()).ok()?;
        Some(f(&LayerSource::new(&checkpoint, &self.path)))
    }
}
