//! Temporary folders that do not pile up when processes are killed.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tracing::warn;

use super::RANDOM;
use super::unfinished::{Publishing, Unfinished};
use crate::error::{Error, Result};

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
    unfinished: Unfinished,
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
            builder.prefix(&prefix).rand_bytes(RANDOM);
            let folder = as_public(&mut builder, 0o777);
            let folder = folder.tempdir_in(parent).map_err(Error::io(parent))?;
            let unfinished = Unfinished::new(folder.path());
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
                return Ok(Self {
                    folder,
                    lock,
                    unfinished,
                });
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
        let publishing = Publishing::begin();
        let moved = std::fs::rename(self.path(), target).map_err(Error::io(target));
        drop(publishing);
        moved?;
        self.leave();
        Ok(())
    }

    /// Moves what is in the folder to `target`, a folder on the same file system, and removes the
    /// rest. Files whose names are `last` go after the others.
    ///
    /// If the process ends in the middle, [`finish_moves`] does the rest.
    ///
    /// # Errors
    /// If one of the names is taken there, or the file system refuses.
    pub(crate) fn empty_into(self, target: &Path, moving: &str, last: &[&str]) -> Result<()> {
        let parent = self.path().parent().unwrap_or(target);
        let name = self.path().file_name().and_then(|name| name.to_str());
        let random = name.and_then(|name| name.rsplit_once('-')).map(|(_, r)| r);
        let moving = parent.join(format!(".{moving}-{}", random.unwrap_or_default()));
        for entry in std::fs::read_dir(self.path()).map_err(Error::io(self.path()))? {
            let entry = entry.map_err(Error::io(self.path()))?;
            let place = target.join(entry.file_name());
            if place.symlink_metadata().is_ok() {
                return Err(Error::file(place, "appeared while the output was written"));
            }
        }
        let publishing = Publishing::begin();
        let renamed = std::fs::rename(self.path(), &moving).map_err(Error::io(self.path()));
        let moved = renamed.and_then(|()| move_entries(&moving, target, last));
        drop(publishing);
        moved?;
        self.leave();
        Ok(())
    }

    /// Forgets the folder, which is not at its place any more.
    fn leave(self) {
        let Self {
            folder,
            lock,
            unfinished,
        } = self;
        let _ = folder.keep();
        drop((lock, unfinished));
    }
}

/// Finishes what [`ScratchDir::empty_into`] began in processes that were killed.
pub(crate) fn finish_moves(folder: &Path, moving: &str, last: &[&str]) -> Result<()> {
    for (left, _lock) in abandoned(folder, &format!(".{moving}-")) {
        move_entries(&left, folder, last)?;
        warn!(
            "{}: finished what a run that was killed had begun to move here",
            folder.display()
        );
    }
    Ok(())
}

/// Moves all entries of a folder and removes it.
fn move_entries(from: &Path, to: &Path, last: &[&str]) -> Result<()> {
    let entries = std::fs::read_dir(from).map_err(Error::io(from))?;
    let names: Result<Vec<_>> = entries
        .map(|entry| Ok(entry.map_err(Error::io(from))?.file_name()))
        .collect();
    let mut names = names?;
    names.sort_by_key(|name| (last.iter().any(|last| name == last), name.clone()));
    for name in names {
        let place = to.join(&name);
        std::fs::rename(from.join(&name), &place).map_err(Error::io(&place))?;
    }
    std::fs::remove_dir(from).map_err(Error::io(from))
}

/// Lets a file or folder have the permissions that the user's umask leaves of `mode`, and not those
/// of a private temporary one.
pub(crate) fn as_public<'b, 'a, 'c>(
    builder: &'b mut tempfile::Builder<'a, 'c>,
    mode: u32,
) -> &'b mut tempfile::Builder<'a, 'c> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Removes the folders whose processes have ended.
fn remove_abandoned(parent: &Path, prefix: &str) {
    // The locks are held until the folder is gone, so that its name cannot be taken meanwhile.
    for (path, _lock) in abandoned(parent, prefix) {
        match std::fs::remove_dir_all(&path) {
            Ok(()) => warn!("removed {}, left by a run that was killed", path.display()),
            Err(error) => warn!(
                "{} is left by a run that was killed: {error}",
                path.display()
            ),
        }
    }
}

/// The folders whose processes have ended, locked.
fn abandoned(parent: &Path, prefix: &str) -> Vec<(PathBuf, File)> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        // A link is not followed: this is the type of the entry itself.
        name.to_str().is_some_and(|name| is_ours(name, prefix))
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
    });
    let locked = |path: PathBuf| {
        let lock = File::open(&path).ok()?;
        lock.try_lock().ok()?;
        Some((path, lock))
    };
    ours.filter_map(|entry| locked(entry.path())).collect()
}

/// Whether this module gives such names.
fn is_ours(name: &str, prefix: &str) -> bool {
    let random = name.strip_prefix(prefix);
    random.is_some_and(|r| r.len() == RANDOM && r.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::names;
    use super::*;

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
