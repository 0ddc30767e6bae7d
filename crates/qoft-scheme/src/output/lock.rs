//! A folder belongs to one run at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::unfinished::Unfinished;
use crate::error::{Error, Result};

/// How often another process may remove its file between our opening and locking it.
const ATTEMPTS: usize = 100;
/// More than a process writes into its file.
const WORDS: u64 = 200;
/// How often, and how long after each other, a file is read whose owner has not written it yet.
const READINGS: usize = 20;
const READING: Duration = Duration::from_millis(5);

/// The right to write into an output folder, as long as this value lives.
///
/// It is a lock of the operating system on a file, so it ends with the process, however that ends:
/// a file that was left behind locks nothing. Where a file system has no locks, there is a warning.
#[derive(Debug)]
pub struct OutputLock {
    file: PathBuf,
    was_left: bool,
    _locked: File,
    _unfinished: Unfinished,
}

impl OutputLock {
    /// Name of the file in a folder that is locked.
    pub const NAME: &str = ".qoft-lock";

    /// Locks a folder that exists.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process has it, or if the file system refuses.
    pub fn inside(folder: &Path) -> Result<Self> {
        Self::at(folder.join(Self::NAME), folder)
    }

    /// Whether another run left its file behind: it did not come to its end, or to an error.
    pub fn was_left(&self) -> bool {
        self.was_left
    }

    /// Locks `output` by `file`.
    pub(crate) fn at(file: PathBuf, output: &Path) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let Some((mut opened, was_left)) = open(&file)? else {
                continue;
            };
            match opened.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Busy {
                        path: output.to_owned(),
                        holder: holder(opened),
                    });
                }
                Err(TryLockError::Error(error)) => warn!(
                    "{}: this file system has no locks ({error}): nothing keeps a second run from \
                     writing into the same folder",
                    output.display()
                ),
            }
            if !is_at(&opened, &file) {
                // Its owner removed it in between, and somebody else may have a new one.
                continue;
            }
            let text = format!("process {}\n", std::process::id());
            let written = opened
                .set_len(0)
                .and_then(|()| opened.rewind())
                .and_then(|()| opened.write_all(text.as_bytes()));
            if let Err(error) = written {
                let _ = std::fs::remove_file(&file);
                return Err(Error::io(&file)(error));
            }
            return Ok(Self {
                _unfinished: Unfinished::new(&file),
                _locked: opened,
                was_left,
                file,
            });
        }
        let reason = "it is removed as soon as it is made";
        Err(Error::file(file, reason))
    }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        // Before the lock goes, so that nobody waits for a file that is about to vanish.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Opens the file of a lock, which is made if it is not there, and tells whether it was there; `None` if
/// it vanished just now. What a
/// link leads to is somebody else's: it is neither made nor, as [`is_at`] sees later, written.
fn open(path: &Path) -> Result<Option<(File, bool)>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => {
            return made
                .map(|file| Some((file, false)))
                .map_err(Error::io(path));
        }
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        let reason = "it is a link, which no lock of a run is: remove it";
        return Err(Error::file(path, reason));
    }
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened
            .map(|file| Some((file, true)))
            .map_err(Error::io(path)),
    }
}

/// What the owner of a locked file says of itself. It writes that once it has the lock, so it may take
/// a moment; where the file cannot be read, its owner stays unknown.
fn holder(mut locked: File) -> String {
    let mut text = String::new();
    for _ in 0..READINGS {
        let mut start = Read::by_ref(&mut locked).take(WORDS);
        if start.read_to_string(&mut text).is_err() || text.ends_with('\n') {
            break;
        }
        std::thread::sleep(READING);
        text.clear();
        if locked.rewind().is_err() {
            break;
        }
    }
    text.trim().to_owned()
}

/// Whether the path still leads to this file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let [ours, there] = [file.metadata(), std::fs::symlink_metadata(path)];
    match (ours, there) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// An open file cannot be removed here.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let lock = OutputLock::inside(folder.path()).unwrap();
        let error = OutputLock::inside(folder.path()).unwrap_err();
        let process = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&process), "{error}");
        drop(lock);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(OutputLock::inside(folder.path()).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "precious").unwrap();
        let link = folder.path().join(OutputLock::NAME);
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let error = OutputLock::inside(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "precious");
        // Nor one that leads nowhere, which opening would make a file of.
        std::fs::remove_file(&other).unwrap();
        OutputLock::inside(folder.path()).unwrap_err();
        assert!(!other.exists());
    }

    /// Such as one that has the lock and was not yet able to write.
    #[test]
    fn an_owner_that_says_nothing_is_an_owner() {
        let folder = tempfile::tempdir().unwrap();
        let silent = open(&folder.path().join(OutputLock::NAME)).unwrap();
        let (silent, _) = silent.unwrap();
        silent.try_lock().unwrap();
        let error = OutputLock::inside(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another run is writing"), "{error}");
        let later = std::thread::scope(|scope| {
            let busy = scope.spawn(|| OutputLock::inside(folder.path()).unwrap_err().to_string());
            std::thread::sleep(READING);
            (&silent).write_all(b"process 12\n").unwrap();
            busy.join().unwrap()
        });
        assert!(later.contains("another run (process 12) is"), "{later}");
    }

    #[test]
    fn a_file_without_an_owner_locks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(OutputLock::NAME), "process 1\n").unwrap();
        drop(OutputLock::inside(folder.path()).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn of_many_at_once_one_has_the_folder() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut taken = 0;
                    while taken < 25 {
                        if let Ok(lock) = OutputLock::inside(folder.path()) {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            taken += 1;
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
