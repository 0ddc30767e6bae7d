//! The folder with a model's small files: tokenizer, templates, settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::error::{Error, Result};

/// A folder with the small files of a model. One that was made for them is there as long as this value or a
/// clone of it.
#[derive(Debug, Clone)]
pub struct SmallFiles {
    path: PathBuf,
    _kept: Option<Arc<TempDir>>,
}

impl SmallFiles {
    /// An empty folder for them.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn new() -> Result<Self> {
        let temporary = std::env::temp_dir();
        let folder = tempfile::Builder::new().prefix("qoft-model-").tempdir();
        let folder = folder.map_err(Error::io(&temporary))?;
        Ok(Self {
            path: folder.path().to_owned(),
            _kept: Some(Arc::new(folder)),
        })
    }

    /// Those that lie beside the tensors.
    pub(crate) fn beside(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            _kept: None,
        }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
