//! JSON files and other texts of a folder.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// How files begin that stand for others in a Git repository.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// Reads a JSON file of a model or an adapter.
///
/// # Errors
/// If it cannot be read or is no JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&read_bytes(path)?)
        .map_err(|e| Error::file(path, format!("not valid JSON: {e}")).caused_by(e))
}

/// Reads a file of a model, an adapter or a training.
///
/// # Errors
/// If it cannot be read, or only stands for another file.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    match stands_for_another(&bytes) {
        None => Ok(bytes),
        Some(reason) => Err(Error::file(path, reason)),
    }
}

/// As [`read_bytes`], for a text.
///
/// # Errors
/// Those of [`read_bytes`], and if it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|e| Error::file(path, format!("no text in UTF-8: {e}")).caused_by(e))
}

/// As [`read_text`], for a file that may be missing.
///
/// # Errors
/// Those of [`read_text`] for a file that is there.
pub fn read_text_if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::metadata(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        _ => read_text(path).map(Some),
    }
}

/// Why the content of a file is not what it should be, if it is a pointer that Git LFS left.
pub fn stands_for_another(bytes: &[u8]) -> Option<String> {
    bytes.starts_with(LFS_POINTER).then(|| {
        "a pointer of Git LFS, not the file itself: run `git lfs pull` in the folder's repository, \
         or download the file"
            .into()
    })
}
