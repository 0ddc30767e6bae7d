//! Output that is either complete or absent.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::scratch::ScratchDir;

/// Writes a file under a temporary name, syncs it and renames it.
///
/// # Errors
/// If the file system refuses.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let parent = parent(path);
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(Error::io(path))?;
    file.write_all(content).map_err(Error::io(path))?;
    publish(file, path)
}

fn publish(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private; outputs are as readable as other files.
        let mode = std::fs::Permissions::from_mode(0o644);
        file.as_file()
            .set_permissions(mode)
            .map_err(Error::io(path))?;
    }
    file.as_file().sync_all().map_err(Error::io(path))?;
    file.persist(path).map_err(|e| Error::io(path)(e.error))?;
    sync_dir(parent(path))
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

/// A folder that is filled beside its final place and appears there in one step. What a process
/// that was killed left of such a folder is removed when it is started again.
#[derive(Debug)]
pub struct StagedDir {
    target: PathBuf,
    staging: ScratchDir,
}

impl StagedDir {
    /// Starts a folder that will become `target`.
    ///
    /// # Errors
    /// If `target` exists and is not an empty folder, or its parent cannot be written.
    pub fn new(target: &Path) -> Result<Self> {
        let occupied = match std::fs::read_dir(target) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => return Err(Error::io(target)(e)),
        };
        if occupied {
            return Err(Error::file(
                target,
                "the output folder exists and is not empty",
            ));
        }
        let parent = parent(target);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let name = target
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or("output");
        Ok(Self {
            target: target.to_path_buf(),
            staging: ScratchDir::new(parent, &format!("{name}.partial"))?,
        })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Syncs all files and moves the folder to its place.
    ///
    /// # Errors
    /// If the file system refuses; then nothing is at the target.
    pub fn commit(self) -> Result<()> {
        for entry in std::fs::read_dir(self.path()).map_err(Error::io(self.path()))? {
            let path = entry.map_err(Error::io(self.path()))?.path();
            File::open(&path)
                .and_then(|f| f.sync_all())
                .map_err(Error::io(&path))?;
        }
        sync_dir(self.path())?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(self.path(), mode).map_err(Error::io(self.path()))?;
        }
        self.staging.rename(&self.target)?;
        sync_dir(parent(&self.target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_folder_appears_at_once_or_never() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let staged = StagedDir::new(&target).unwrap();
        write_file(&staged.path().join("a"), b"1").unwrap();
        assert!(!target.exists());
        drop(staged);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let staged = StagedDir::new(&target).unwrap();
        write_file(&staged.path().join("a"), b"2").unwrap();
        staged.commit().unwrap();
        assert_eq!(std::fs::read(target.join("a")).unwrap(), b"2");
        assert!(StagedDir::new(&target).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_file(&path, b"old").unwrap();
        write_file(&path, b"new content").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new content");
    }
}
