//! JSON files of a folder.

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
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    if let Some(reason) = stands_for_another(&bytes) {
        return Err(Error::file(path, reason));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::file(path, format!("not valid JSON: {e}")).caused_by(e))
}

/// Why the content of a file is not what it should be, if it is a pointer that Git LFS left.
pub fn stands_for_another(bytes: &[u8]) -> Option<String> {
    bytes.starts_with(LFS_POINTER).then(|| {
        "a pointer of Git LFS, not the file itself: run `git lfs pull` in the folder's repository, \
         or download the file"
            .into()
    })
}
