//! Small reference files for the tests of the workspace.
//!
//! Everything below `data/` was written by the Python scripts in `python/` with the libraries
//! whose files and numbers qoft has to reproduce: bitsandbytes, transformers, tokenizers and PEFT.
//! The files are committed, so tests need no Python. The README of this crate describes each
//! folder and the meaning of the expected values.
//!
//! ```
//! let folder = qoft_fixtures::path("bnb/nf4_b64_f32");
//! assert!(folder.join("model.safetensors").is_file());
//! ```

pub mod hub;

use std::path::PathBuf;

/// The path of the file or folder `name` below `data/`, for example `"models/llama_nf4"`.
///
/// # Panics
///
/// When there is no such file or folder.
#[must_use]
#[track_caller]
pub fn path(name: &str) -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data")).join(name);
    assert!(
        path.exists(),
        "there is no fixture {name:?}: {} does not exist (python/make_all.sh writes the fixtures)",
        path.display()
    );
    path
}

/// All folders inside the folder `name` below `data/`, sorted.
///
/// # Panics
///
/// When there is no such folder, or it holds none.
#[must_use]
#[track_caller]
pub fn folders(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path(name)).expect("a folder that can be listed");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "{name:?} holds no folder");
    folders
}
