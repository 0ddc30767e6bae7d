//! Temporary folders that do not pile up when processes are killed.

use std::fs::{File, TryLockError};
use std::path::Path;

use tempfile::TempDir;
use tracing::warn;

use crate::error::{Error, Result};

/// Random characters at the end of a folder's name.
const RANDOM: usize = 6;
/// How often another process may come between making a folder and locking it.
const ATTEMPTS: usize = 8;

/// A hidden temporary folder, removed when it is dropped.
///
/// A process that is killed cannot remove its folder. Therefore each folder is locked while it is
/// in use: the system unlocks it when the process ends, however that happens. What is found
/// unlocked was left behind, and is removed by the next process that makes a folder of this name.
/// Where a file system has no locks, nothing is removed.
#[derive(Debug)]
pub struct ScratchDir {
    folder: TempDir,
    /// The open folder, which holds the lock.
    lock: Option<File>,
}

impl ScratchDir {
    /// Makes the folder `.NAME-…` in `parent`, and removes those that are left there.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn new(parent: &Path, name: &str) -> Result<Self> {
        let prefix = format!(".{name}-");
        remove_abandoned(parent, &prefix);
        for _ in 0..ATTEMPTS {
            let mut builder = tempfile::Builder::new();
            let folder = builder.prefix(&prefix).rand_bytes(RANDOM);
            let folder = folder.tempdir_in(parent).map_err(Error::io(parent))?;
            // Until it is locked, another process can take it for one that was left behind.
            let Ok(lock) = File::open(folder.path()) else {
                continue;
            };
            let lock = match lock.try_lock() {
                Ok(()) => Some(lock),
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(_)) => None,
            };
            if folder.path().is_dir() {
                return Ok(Self { folder, lock });
            }
        }
        let reason = "temporary folders are removed as soon as they are made";
        Err(Error::file(parent, reason))
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Moves the folder to `target`, where it stays.
    ///
    /// # Errors
    /// If the file system refuses; then the folder is removed.
    pub fn rename(self, target: &Path) -> Result<()> {
        let Self { folder, lock } = self;
        std::fs::rename(folder.path(), target).map_err(Error::io(target))?;
        // There is nothing to remove any more.
        let _ = folder.keep();
        drop(lock);
        Ok(())
    }
}

/// Removes the folders whose processes have ended.
fn remove_abandoned(parent: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| is_ours(name, prefix));
        // A link is not followed: this is the type of the entry itself.
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let lock = File::open(&path);
        // Held until the folder is gone, so that its name cannot be taken meanwhile.
        if !lock.as_ref().is_ok_and(|lock| lock.try_lock().is_ok()) {
            continue;
        }
        match std::fs::remove_dir_all(&path) {
            Ok(()) => warn!("removed {}, left by a run that was killed", path.display()),
            Err(error) => warn!(
                "{} is left by a run that was killed: {error}",
                path.display()
            ),
        }
    }
}

/// Whether this module gives such names.
fn is_ours(name: &str, prefix: &str) -> bool {
    let random = name.strip_prefix(prefix);
    random.is_some_and(|r| r.len() == RANDOM && r.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn only_folders_of_this_name_that_nobody_holds_are_removed() {
        let work = tempfile::tempdir().unwrap();
        let live = ScratchDir::new(work.path(), "out.partial").unwrap();
        std::fs::write(live.path().join("a"), "1").unwrap();
        // A process that was killed leaves its folder without a lock.
        let left = work.path().join(".out.partial-aB3dE6");
        std::fs::create_dir_all(left.join("b")).unwrap();
        std::fs::write(left.join("b").join("c"), "1").unwrap();
        let others = [
            ".out.partial-12345",
            ".out.partial-1234567",
            ".out.partial-12345_",
            ".other.partial-123456",
            "out.partial-123456",
        ];
        for name in others {
            std::fs::create_dir(work.path().join(name)).unwrap();
        }
        std::fs::write(work.path().join(".out.partial-abcdef"), "a file").unwrap();
        let target = tempfile::tempdir().unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(target.path(), work.path().join(".out.partial-link00")).unwrap();

        let before = names(work.path());
        let second = ScratchDir::new(work.path(), "out.partial").unwrap();
        assert!(!left.exists());
        assert!(live.path().join("a").exists() && target.path().exists());
        let kept = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected = before;
        expected.retain(|name| *name != kept(&left));
        expected.push(kept(second.path()));
        expected.sort();
        assert_eq!(names(work.path()), expected);
        drop((live, second));
        let third = ScratchDir::new(work.path(), "out.partial").unwrap();
        drop(third);
        assert_eq!(names(work.path()).len(), expected.len() - 2);
    }

    #[test]
    fn many_at_once_do_not_take_each_others_folders() {
        let work = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let folder = ScratchDir::new(work.path(), "out.partial").unwrap();
                        std::fs::write(folder.path().join("a"), "1").unwrap();
                        assert!(folder.path().join("a").exists());
                    }
                });
            }
        });
        assert!(names(work.path()).is_empty());
    }
}
