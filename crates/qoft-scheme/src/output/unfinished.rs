//! What is being written, so that a process that is told to stop can leave nothing of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often a folder is removed in which other threads still make files.
const ATTEMPTS: usize = 50;

static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A temporary file or folder of this process, as long as this value lives.
#[derive(Debug)]
pub(crate) struct Unfinished(PathBuf);

impl Unfinished {
    pub(crate) fn new(path: &Path) -> Self {
        // Where the process is when it ends does not matter to an absolute path.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        paths().insert(path.clone());
        Self(path)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        paths().remove(&self.0);
    }
}

/// While this lives, [`discard_unfinished`] waits: what is on the way to its place gets there.
#[derive(Debug)]
pub(crate) struct Publishing {
    _paths: MutexGuard<'static, BTreeSet<PathBuf>>,
}

impl Publishing {
    pub(crate) fn begin() -> Self {
        Self { _paths: paths() }
    }
}

/// Removes everything that this process is writing and that is not at its place yet. Call it when
/// the process ends before its work is done; from then on nothing can be finished any more.
///
/// Threads that are at work go on, and may meet errors or wait for ever.
pub fn discard_unfinished() {
    let paths = paths();
    for path in paths.iter() {
        for _ in 0..ATTEMPTS {
            let removed = match path.is_dir() {
                true => std::fs::remove_dir_all(path),
                false => std::fs::remove_file(path),
            };
            if removed.is_ok() || !path.exists() {
                break;
            }
        }
    }
    // Nobody publishes or begins anything from here on.
    std::mem::forget(paths);
}

fn paths() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}
