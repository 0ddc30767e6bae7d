//! The adapters below the one that trains, which it cannot be used without.

use std::path::{Path, PathBuf};

use qoft_core::{Error, read_text_if_there, write_file};
use qoft_peft::WEIGHTS;
use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// The file beside an adapter that was trained on top of others.
pub(super) const FILE: &str = "adapters_below.json";

/// An adapter that stays as it is below the one that trains.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Below {
    /// Its folder.
    pub folder: PathBuf,
    /// How much of it is applied.
    pub strength: f64,
    /// Of the file with its parameters.
    pub weights: Digest,
}

/// Where the folder is does not matter.
impl PartialEq for Below {
    fn eq(&self, other: &Self) -> bool {
        self.weights == other.weights && self.strength == other.strength
    }
}

impl Below {
    /// The adapter in `folder`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn new(folder: &Path, strength: f64) -> Result<Self, Error> {
        Ok(Self {
            folder: folder.canonicalize().map_err(Error::io(folder))?,
            strength,
            weights: Digest::of_file(&folder.join(WEIGHTS))?,
        })
    }

    /// The adapters below the one in `folder`, in the order in which they are applied.
    ///
    /// # Errors
    /// If the file that names them is damaged.
    pub fn of_adapter(folder: &Path) -> Result<Vec<Self>, Error> {
        let path = folder.join(FILE);
        match read_text_if_there(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|e| Error::file(path, e)),
            None => Ok(Vec::new()),
        }
    }

    /// Writes them beside the adapter in `folder`. Without any there is no file.
    pub(super) fn write(below: &[Self], folder: &Path) -> Result<(), Error> {
        if below.is_empty() {
            return Ok(());
        }
        let path = folder.join(FILE);
        let mut text = serde_json::to_string_pretty(below).map_err(|e| Error::file(&path, e))?;
        text.push('\n');
        write_file(&path, text.as_bytes())
    }
}

impl std::fmt::Display for Below {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.folder.display())?;
        match self.strength {
            1.0 => Ok(()),
            strength => write!(f, "={strength}"),
        }
    }
}
