//! The files of a folder that go to the Hub.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::{HubError, Transfer};

/// Bytes of a file's start by which the Hub tells texts from others.
const SAMPLE: u64 = 512;
/// Folders that a training keeps beside its adapter.
const CHECKPOINT: &str = "checkpoint-";

/// A file here, and its name there.
pub(super) struct LocalFile {
    /// Path in the repository, with `/`.
    pub(super) path: String,
    pub(super) local: PathBuf,
    pub(super) size: u64,
}

/// The files of a folder and of those inside.
pub(super) fn files(
    folder: &Path,
    transfer: &mut dyn Transfer,
) -> Result<Vec<LocalFile>, HubError> {
    let mut found = Vec::new();
    let mut left = Vec::new();
    collect(folder, "", &mut found, &mut left)?;
    if found.is_empty() {
        let nothing = io::Error::new(io::ErrorKind::NotFound, "no files to push");
        return Err(HubError::io(folder, nothing));
    }
    if !left.is_empty() {
        transfer.note(&format!("left out: {}", left.join(", ")));
    }
    Ok(found)
}

fn collect(
    folder: &Path,
    prefix: &str,
    found: &mut Vec<LocalFile>,
    left: &mut Vec<String>,
) -> Result<(), HubError> {
    let failed = |error| HubError::io(folder, error);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (local, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str() else {
            left.push(local.display().to_string());
            continue;
        };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(failed)?;
        if name.starts_with('.') || kind.is_dir() && name.starts_with(CHECKPOINT) {
            left.push(path);
        } else if kind.is_dir() {
            collect(&local, &format!("{path}/"), found, left)?;
        } else if kind.is_file() {
            let size = entry.metadata().map_err(failed)?.len();
            found.push(LocalFile { path, local, size });
        } else {
            // What a link stands for may be something that nobody wants to publish.
            left.push(path);
        }
    }
    Ok(())
}

impl LocalFile {
    /// The first bytes.
    pub(super) fn sample(&self) -> Result<String, HubError> {
        let mut start = Vec::new();
        let file = File::open(&self.local).map_err(|error| self.failed(error))?;
        let read = file.take(SAMPLE).read_to_end(&mut start);
        read.map_err(|error| self.failed(error))?;
        Ok(STANDARD.encode(start))
    }

    /// All of it.
    pub(super) fn base64(&self) -> Result<String, HubError> {
        let bytes = fs::read(&self.local).map_err(|error| self.failed(error))?;
        Ok(STANDARD.encode(bytes))
    }

    /// Its digest, in hexadecimal digits.
    pub(super) fn sha256(&self) -> Result<String, HubError> {
        let mut file = File::open(&self.local).map_err(|error| self.failed(error))?;
        let mut digest = Sha256::new();
        io::copy(&mut file, &mut digest).map_err(|error| self.failed(error))?;
        Ok(digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }

    fn failed(&self, error: io::Error) -> HubError {
        HubError::io(&self.local, error)
    }
}
