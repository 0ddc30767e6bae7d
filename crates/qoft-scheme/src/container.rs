//! Checkpoints that are no folders of safetensors: file formats that hold whole models.

use std::fmt::Debug;
use std::path::Path;

use serde_json::Value;

use crate::container_writer::ContainerWriter;
use crate::error::{Error, Result};
use crate::mapped::MappedTensors;
use crate::small_files::SmallFiles;

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

impl Debug for dyn Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
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

/// Opens `path` by `container`, and puts its small files into a folder.
pub(crate) fn unpack(
    container: &'static dyn Container,
    path: &Path,
) -> Result<(SmallFiles, Value, Vec<MappedTensors>)> {
    let Contents {
        config,
        files,
        tensors,
    } = container.open(path)?;
    let folder = SmallFiles::new()?;
    let text = serde_json::to_vec_pretty(&config).map_err(|e| Error::file(path, e))?;
    let all = files.into_iter().chain([("config.json".to_owned(), text)]);
    for (name, content) in all {
        let file = folder.path().join(&name);
        std::fs::write(&file, content).map_err(Error::io(&file))?;
    }
    Ok((folder, config, tensors))
}
