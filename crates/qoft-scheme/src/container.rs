//! Checkpoints that are no folders of safetensors: file formats that hold whole models.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::container_writer::ContainerWriter;
use crate::error::{Error, Result};
use crate::mapped::MappedTensors;

/// A file format of checkpoints.
///
/// It shows its content as a folder of Hugging Face would have it: a configuration, tensors under the
/// names of the model, and small files such as a tokenizer's. What safetensors have no dtype for, a
/// container shows as bytes under a name of its own, which its scheme claims.
pub trait Container: Send + Sync + 'static {
    /// Its name, such as the ending of its files.
    fn name(&self) -> &'static str;

    /// Whether `path`, a file or a folder, is a checkpoint of this format. Cheap: judged by names
    /// and first bytes.
    fn reads(&self, path: &Path) -> bool;

    /// Reads all but the tensors' values.
    ///
    /// # Errors
    /// If a file is damaged, or a model of a kind that cannot be shown.
    fn open(&self, path: &Path) -> Result<Contents>;

    /// Writes models in this format; `None` if they are only read.
    fn writer(&self) -> Option<&dyn ContainerWriter> {
        None
    }
}

/// What a container holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Contents {
    /// As `config.json` has it, an object.
    pub config: Value,
    /// The small files beside it, each with its name and its content.
    pub files: Vec<(String, Vec<u8>)>,
    /// The tensors.
    pub tensors: Vec<MappedTensors>,
}

impl Contents {
    /// Of these parts.
    pub fn new(config: Value, files: Vec<(String, Vec<u8>)>, tensors: Vec<MappedTensors>) -> Self {
        Self {
            config,
            files,
            tensors,
        }
    }
}

/// An opened container with its small files in a folder that lives as long.
#[derive(Clone)]
pub(crate) struct Unpacked {
    pub container: &'static dyn Container,
    /// What was opened.
    pub path: PathBuf,
    _folder: std::sync::Arc<tempfile::TempDir>,
}

impl Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.container.name(), self.path.display())
    }
}

/// Opens `path` by `container`, and puts its small files into a folder, which is returned too.
pub(crate) fn unpack(
    container: &'static dyn Container,
    path: &Path,
) -> Result<(Unpacked, PathBuf, Value, Vec<MappedTensors>)> {
    let Contents {
        config,
        files,
        tensors,
    } = container.open(path)?;
    let temporary = std::env::temp_dir();
    let folder = tempfile::Builder::new().prefix("qoft-model-").tempdir();
    let folder = folder.map_err(Error::io(&temporary))?;
    let text = serde_json::to_vec_pretty(&config).map_err(|e| Error::file(path, e))?;
    let all = files.into_iter().chain([("config.json".to_owned(), text)]);
    for (name, content) in all {
        let file = folder.path().join(&name);
        std::fs::write(&file, content).map_err(Error::io(&file))?;
    }
    let dir = folder.path().to_owned();
    let unpacked = Unpacked {
        container,
        path: path.to_owned(),
        _folder: std::sync::Arc::new(folder),
    };
    Ok((unpacked, dir, config, tensors))
}
