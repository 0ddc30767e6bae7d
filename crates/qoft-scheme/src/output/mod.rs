//! Output that is either complete or absent.

mod lock;
mod scratch;
mod staged;
#[cfg(test)]
mod testing;
mod unfinished;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use tracing::warn;

use crate::error::{Error, Result};

pub use lock::OutputLock;
pub use scratch::ScratchDir;
pub use staged::StagedDir;
pub use unfinished::discard_unfinished;

use scratch::as_public;
use unfinished::{Publishing, Unfinished};

/// Names of the hidden files that [`write_file`] leaves if the process is killed, before
/// [`RANDOM`] characters.
const TEMPORARY: &str = "qoft.tmp-";
const RANDOM: usize = 6;

/// Writes a file under a temporary name, syncs it and renames it.
///
/// # Errors
/// If the file system refuses.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let mut builder = tempfile::Builder::new();
    let prefix = format!(".{TEMPORARY}");
    builder.prefix(&prefix).rand_bytes(RANDOM);
    let file = as_public(&mut builder, 0o666).tempfile_in(parent(path));
    let mut file = file.map_err(Error::io(path))?;
    let _unfinished = Unfinished::new(file.path());
    file.write_all(content).map_err(Error::io(path))?;
    file.as_file().sync_all().map_err(Error::io(path))?;
    let publishing = Publishing::begin();
    let moved = file.persist(path).map_err(|e| Error::io(path)(e.error));
    drop(publishing);
    moved?;
    sync_dir(parent(path))
}

/// Removes from a folder what processes that were killed left of [`write_file`], and of
/// [`StagedDir`]s whose names begin with one of `staged`. Nobody may be writing there.
pub fn remove_leftovers(folder: &Path, staged: &[&str]) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix('.'));
        let Some(name) = name else { continue };
        let staged = staged.iter().any(|staged| name.starts_with(staged));
        let random = |before: &str| {
            let split = name.rsplit_once(before);
            split.is_some_and(|(_, random)| random.len() == RANDOM)
        };
        // A link is not followed: this is the type of the entry itself.
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() && staged && random(&format!("{}-", staged::PARTIAL)) => {
                std::fs::remove_dir_all(&path)
            }
            Ok(kind) if kind.is_file() && name.starts_with(TEMPORARY) && random("-") => {
                std::fs::remove_file(&path)
            }
            Ok(kind) if kind.is_file() && staged && name.ends_with(staged::LOCK) => {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            _ => continue,
        };
        match removed {
            Ok(()) => warn!("removed {}, left by a run that was killed", path.display()),
            Err(error) => warn!(
                "{} is left by a run that was killed: {error}",
                path.display()
            ),
        }
    }
}

/// Whether a name in a folder is that of something which belongs to the file system, and makes the
/// folder no less empty: ext4 has such a folder in its root.
pub fn is_of_file_system(name: &OsStr) -> bool {
    name == "lost+found"
}

/// Fails if an output would be at the end of a link that leads nowhere.
///
/// # Errors
/// The error names the link and where it leads.
pub fn refuse_dangling(output: &Path) -> Result<()> {
    match std::fs::read_link(output) {
        Ok(target) if !output.exists() => {
            let target = target.display();
            let reason = format!(
                "the output is a link to {target}, which does not exist: make that folder, or remove \
                 the link"
            );
            Err(Error::file(output, reason))
        }
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_file(&path, b"old").unwrap();
        write_file(&path, b"new content").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new content");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_was_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ".qoft.tmp-a1B2c3",
            ".c-1.lock",
            ".qoft.tmp-1234567",
            ".tmpa1B2c3",
            ".d-1.lock",
            "c-1.lock",
        ];
        let folders = [
            ".c-1.partial-a1B2c3",
            ".c-1.partial-a1",
            ".d-1.partial-a1B2c3",
            "c-1",
        ];
        for name in files {
            std::fs::write(dir.path().join(name), "1").unwrap();
        }
        for name in folders {
            std::fs::create_dir_all(dir.path().join(name).join("x")).unwrap();
        }
        remove_leftovers(dir.path(), &["c-"]);
        let left = |name| dir.path().join(name).exists();
        assert_eq!(files.map(left), [false, false, true, true, true, true]);
        assert_eq!(folders.map(left), [false, true, true, true]);
    }
}
