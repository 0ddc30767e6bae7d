//! Folders that appear when they are complete.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::scratch::finish_moves;
use super::{OutputLock, ScratchDir, parent, sync_dir};
use crate::error::{Error, Result};

/// After the name of a target: what stands beside it while it is written, before a hyphen and
/// random characters, and the file that locks it.
pub(super) const PARTIAL: &str = ".partial";
pub(super) const LOCK: &str = ".lock";
/// Names of temporary folders inside a target that exists: while they are filled, and while what is
/// in them moves to its place.
const INSIDE: &str = "qoft.partial";
const MOVING: &str = "qoft.moving";
/// Without these a folder is no checkpoint and no adapter: they are moved after the others.
const LAST: &[&str] = &["adapter_config.json", "config.json"];

/// A folder that is filled beside its final place and appears there in one step. What a process
/// that was killed left of such a folder is removed when it is started again, and only one process
/// at a time can have it.
///
/// A target that exists, as an empty folder, stays the folder that it is: it may be a mount point,
/// or where the user is. It is filled by a hidden folder inside, whose files are moved in the end,
/// one rename each.
#[derive(Debug)]
pub struct StagedDir {
    target: PathBuf,
    staging: ScratchDir,
    inside: bool,
    // After the folder, which is removed while it is locked.
    _lock: OutputLock,
}

impl StagedDir {
    /// Starts a folder that will become `target`.
    ///
    /// # Errors
    /// If `target` exists and is not an empty folder, another process is writing it, or the file
    /// system refuses.
    pub fn new(target: &Path) -> Result<Self> {
        match std::fs::metadata(target) {
            Ok(_) => Self::inside(target),
            Err(e) if e.kind() == ErrorKind::NotFound => Self::beside(target),
            Err(e) => Err(Error::io(target)(e)),
        }
    }

    fn beside(target: &Path) -> Result<Self> {
        let folder = parent(target);
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let lock = OutputLock::at(lock_beside(target), target)?;
        Ok(Self {
            staging: ScratchDir::new(folder, &format!("{}{PARTIAL}", name(target)))?,
            target: target.to_owned(),
            inside: false,
            _lock: lock,
        })
    }

    fn inside(target: &Path) -> Result<Self> {
        let hidden = [
            OutputLock::NAME,
            &format!(".{INSIDE}-"),
            &format!(".{MOVING}-"),
        ];
        if let Err(occupied) = refuse_occupied(target, &hidden) {
            // A run that was killed after its folder had appeared left its lock.
            let left = lock_beside(target);
            if left.exists() {
                drop(OutputLock::at(left, target));
            }
            return Err(occupied);
        }
        let lock = OutputLock::inside(target)?;
        finish_moves(target, MOVING, LAST)?;
        let staging = ScratchDir::new(target, INSIDE)?;
        // With the lock, nothing hidden is anybody else's.
        let own = staging.path().file_name().and_then(|name| name.to_str());
        refuse_occupied(target, &[OutputLock::NAME, own.unwrap_or_default()])?;
        Ok(Self {
            target: target.to_owned(),
            staging,
            inside: true,
            _lock: lock,
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
        if self.inside {
            self.staging.empty_into(&self.target, MOVING, LAST)?;
            sync_dir(&self.target)
        } else {
            self.staging.rename(&self.target)?;
            sync_dir(parent(&self.target))
        }
    }
}

fn name(target: &Path) -> &str {
    let name = target.file_name().and_then(|name| name.to_str());
    name.unwrap_or("output")
}

/// The file that locks a target that does not exist yet.
fn lock_beside(target: &Path) -> PathBuf {
    parent(target).join(format!(".{}{LOCK}", name(target)))
}

/// Fails if a folder has something whose name begins with none of `hidden`.
fn refuse_occupied(folder: &Path, hidden: &[&str]) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        let name = name.to_string_lossy();
        if !hidden.iter().any(|hidden| name.starts_with(hidden)) {
            let reason = "the output folder exists and is not empty";
            return Err(Error::file(folder, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::names;
    use super::super::write_file;
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
        let second = StagedDir::new(&target).unwrap_err();
        assert!(matches!(second, Error::Busy { .. }), "{second}");
        staged.commit().unwrap();
        assert_eq!(std::fs::read(target.join("a")).unwrap(), b"2");
        assert_eq!(names(dir.path()), ["out"]);
        assert!(StagedDir::new(&target).is_err());
    }

    #[test]
    fn a_folder_that_exists_is_filled_and_stays_itself() {
        let target = tempfile::tempdir().unwrap();
        let opened = File::open(target.path()).unwrap();
        let staged = StagedDir::new(target.path()).unwrap();
        write_file(&staged.path().join("config.json"), b"1").unwrap();
        std::fs::create_dir(staged.path().join("sub")).unwrap();
        write_file(&staged.path().join("sub").join("a"), b"1").unwrap();
        let second = StagedDir::new(target.path()).unwrap_err();
        assert!(matches!(second, Error::Busy { .. }), "{second}");
        staged.commit().unwrap();
        assert_eq!(names(target.path()), ["config.json", "sub"]);
        assert_eq!(names(&target.path().join("sub")), ["a"]);
        assert!(StagedDir::new(target.path()).is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let [before, after] = [opened.metadata(), std::fs::metadata(target.path())];
            assert_eq!(before.unwrap().ino(), after.unwrap().ino());
        }
        drop(opened);
    }

    #[test]
    fn what_was_there_is_not_replaced() {
        let target = tempfile::tempdir().unwrap();
        let staged = StagedDir::new(target.path()).unwrap();
        write_file(&staged.path().join("a"), b"ours").unwrap();
        std::fs::write(target.path().join("a"), "theirs").unwrap();
        assert!(staged.commit().is_err());
        assert_eq!(names(target.path()), ["a"]);
        assert_eq!(std::fs::read(target.path().join("a")).unwrap(), b"theirs");
    }

    #[test]
    fn a_move_that_was_cut_off_is_finished() {
        let target = tempfile::tempdir().unwrap();
        let left = target.path().join(".qoft.moving-aB3dE6");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("config.json"), "1").unwrap();
        let error = StagedDir::new(target.path()).unwrap_err();
        assert!(error.to_string().contains("not empty"), "{error}");
        assert_eq!(names(target.path()), ["config.json"]);
    }

    #[test]
    fn the_lock_of_a_run_that_was_killed_in_the_end_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("config.json"), "1").unwrap();
        let lock = dir.path().join(".out.lock");
        std::fs::write(&lock, "process 1\n").unwrap();
        StagedDir::new(&target).unwrap_err();
        assert_eq!(names(dir.path()), ["out"]);
        let held = OutputLock::at(lock, &target).unwrap();
        StagedDir::new(&target).unwrap_err();
        assert_eq!(names(dir.path()), [".out.lock", "out"]);
        drop(held);
    }

    #[test]
    fn what_a_killed_run_left_inside_is_removed() {
        let target = tempfile::tempdir().unwrap();
        let left = target.path().join(".qoft.partial-aB3dE6");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("a"), "1").unwrap();
        std::fs::write(target.path().join(OutputLock::NAME), "process 1\n").unwrap();
        drop(StagedDir::new(target.path()).unwrap());
        assert_eq!(names(target.path()), [""; 0]);
    }
}
