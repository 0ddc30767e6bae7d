//! A file of the Hub into the cache, laid there as Python's tools lay it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hf_hub::{Cache, Repo};

use crate::Transfer;
use crate::client::{About, Client, Failure};

/// Attempts after a connection broke, and the pause before the first of them.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(250);

/// A file that is wanted.
pub struct Download<'a> {
    pub client: &'a Client,
    pub cache: &'a Path,
    pub repo: &'a Repo,
    pub file: &'a str,
    /// What the user hears that it is called.
    pub title: &'a str,
}

impl Download<'_> {
    /// Fetches the file; where it lies in the folder of its commit. A connection that breaks or falls silent is
    /// left for a new one, some times.
    pub fn run(&self, transfer: &mut dyn Transfer) -> Result<PathBuf, Failure> {
        let mut pause = PAUSE;
        let mut attempt = 0;
        loop {
            match self.attempt(transfer) {
                Err(failure) if attempt < ATTEMPTS && failure.may_pass() => {
                    attempt += 1;
                    transfer.note(&format!(
                        "{}/{}: {failure}; once more",
                        self.title, self.file
                    ));
                    thread::sleep(pause);
                    pause *= 2;
                }
                done => return done,
            }
        }
    }

    fn attempt(&self, transfer: &mut dyn Transfer) -> Result<PathBuf, Failure> {
        let url = self.client.url(self.repo, self.file);
        let about = self.client.about(&url)?;
        let cache = Cache::new(self.cache.to_owned()).repo(self.repo.clone());
        let blob = cache.blob_path(&about.etag);
        if let Some(folder) = blob.parent() {
            fs::create_dir_all(folder)?;
        }
        if !blob.exists() {
            let lock = Lock::take(blob.with_extension("lock"))?;
            self.complete(&url, &about, &blob, transfer)?;
            drop(lock);
        }
        let pointer = cache.pointer_path(&about.commit).join(self.file);
        if let Some(folder) = pointer.parent() {
            fs::create_dir_all(folder)?;
        }
        if !pointer.exists() {
            link(self.file, &blob, &pointer)?;
        }
        cache.create_ref(&about.commit)?;
        Ok(pointer)
    }

    /// Fetches what an earlier attempt has not left.
    fn complete(
        &self,
        url: &str,
        about: &About,
        blob: &Path,
        transfer: &mut dyn Transfer,
    ) -> Result<(), Failure> {
        let part = blob.with_extension("part");
        let mut file = OpenOptions::new().append(true).create(true).open(&part)?;
        let mut here = file.metadata()?.len();
        if here > about.size {
            file.set_len(0)?;
            here = 0;
        }
        transfer.file(self.file, about.size);
        transfer.bytes(here);
        while here < about.size {
            let mut came = 0;
            let mut heard = |bytes| {
                came += bytes;
                transfer.bytes(bytes);
            };
            match self.client.append(url, here, &mut file, &mut heard) {
                // Its time was over, and it was not silent.
                Err(Failure::Silence(_)) if came > 0 => {}
                Err(failure) => return Err(failure),
                Ok(()) if here + came == about.size => {}
                Ok(()) => {
                    let message = format!("{} bytes came of {}", here + came, about.size);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message).into());
                }
            }
            here += came;
        }
        file.sync_all()?;
        fs::rename(&part, blob)?;
        Ok(())
    }
}

/// The folders of commits have links to the files, relative ones, so that the cache can be moved.
fn link(file: &str, blob: &Path, pointer: &Path) -> io::Result<()> {
    let name = blob.file_name().unwrap_or_default();
    let up = "../".repeat(2 + file.matches('/').count());
    let target = Path::new(&up).join("blobs").join(name);
    #[cfg(unix)]
    return std::os::unix::fs::symlink(target, pointer);
    // Links need a right there that not everybody has.
    #[cfg(windows)]
    return std::os::windows::fs::symlink_file(target, pointer)
        .or_else(|_| fs::rename(blob, pointer));
}

/// Keeps other programs from writing the same file.
struct Lock(File);

impl Lock {
    fn take(path: PathBuf) -> Result<Self, Failure> {
        let file = File::create(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Failure::Locked(path)),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The lock ends with the file in any case.
        let _ = self.0.unlock();
    }
}
