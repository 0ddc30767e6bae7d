//! Output that is either complete or absent.

mod lock;
mod scratch;
mod staged;
mod unfinished;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

pub use lock::OutputLock;
pub use scratch::ScratchDir;
pub use staged::StagedDir;
pub use unfinished::discard_unfinished;

use scratch::as_public;
use unfinished::{Publishing, Unfinished};

/// Names of the files that [`write_file`] leaves if the process is killed, and random characters
/// behind.
const TEMPORARY: &str = ".qoft.tmp-";
/// The random characters.
const RANDOM: usize = 6;

/// Writes a file under a temporary name, syncs it and renames it.
///
/// # Errors
/// If the file system refuses.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY).rand_bytes(RANDOM);
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

/// Removes what [`write_file`] left in a folder in processes that were killed. Nobody may be
/// writing there.
pub fn remove_temporary_files(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY));
        let ours = random.is_some_and(|r| r.len() == RANDOM)
            && entry.file_type().is_ok_and(|kind| kind.is_file());
        if ours && std::fs::remove_file(entry.path()).is_ok() {
            tracing::warn!(
                "removed {}, left by a run that was killed",
                entry.path().display()
            );
        }
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
    fn only_what_was_left_of_files_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let names = [".qoft.tmp-a1B2c3", ".qoft.tmp-1234567", ".tmpa1B2c3", "f"];
        for name in names {
            std::fs::write(dir.path().join(name), "1").unwrap();
        }
        remove_temporary_files(dir.path());
        let left = names.map(|name| dir.path().join(name).exists());
        assert_eq!(left, [false, true, true, true]);
    }
}
