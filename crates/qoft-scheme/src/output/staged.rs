//! Folders that appear when they are complete.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::scratch::finish_moves;
use super::unfinished::Publishing;
use super::{OutputLock, ScratchDir, is_of_file_system, parent, refuse_dangling, sync_dir};
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
///
/// A single file is written in the same way: see [`Self::of_file`].
#[derive(Debug)]
pub struct StagedDir {
    target: PathBuf,
    staging: ScratchDir,
    place: Place,
    // After the folder, which is removed while it is locked.
    _lock: OutputLock,
}

/// Where the staging folder goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It becomes the target.
    Target,
    /// What is in it goes into the target.
    Inside,
    /// The file of the target's name becomes the target.
    File,
}

impl StagedDir {
    /// Starts a folder that will become `target`.
    ///
    /// # Errors
    /// If `target` exists and is not an empty folder, another process is writing it, or the file
    /// system refuses.
    pub fn new(target: &Path) -> Result<Self> {
        refuse_dangling(target)?;
        match std::fs::metadata(target) {
            Ok(found) if !found.is_dir() => {
                let reason = "a file; the output is a folder, which is made if it is not there";
                Err(Error::file(target, reason))
            }
            Ok(_) => Self::inside(target),
            Err(e) if e.kind() == ErrorKind::NotFound => Self::beside(target),
            Err(e) => Err(Error::io(target)(e)),
        }
    }

    /// Starts a folder for a single file that will become `target`, and has the same name there.
    /// Whatever else is put into the folder stands beside it in the end: `NAME` as `STEM.NAME`, with
    /// what the target is called without its ending.
    ///
    /// # Errors
    /// If `target` exists, another process is writing it, or the file system refuses.
    pub fn of_file(target: &Path) -> Result<Self> {
        if target.symlink_metadata().is_ok() {
            return Err(Error::file(target, "the output file exists"));
        }
        let staged = Self::beside(target)?;
        Ok(Self {
            place: Place::File,
            ..staged
        })
    }

    /// The name of the single file, if it is one.
    pub fn file_name(&self) -> Option<&str> {
        let name = self.target.file_name().and_then(|name| name.to_str());
        name.filter(|_| self.place == Place::File)
    }

    fn beside(target: &Path) -> Result<Self> {
        let folder = parent(target);
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let lock = OutputLock::at(lock_beside(target), target)?;
        Ok(Self {
            staging: ScratchDir::new(folder, &format!("{}{PARTIAL}", name(target)))?,
            target: target.to_owned(),
            place: Place::Target,
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
            place: Place::Inside,
            _lock: lock,
        })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Syncs all files and moves the folder, or what is in it, to its place.
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
        match self.place {
            Place::Inside => {
                self.staging.empty_into(&self.target, MOVING, LAST)?;
                sync_dir(&self.target)
            }
            Place::Target => {
                self.staging.rename(&self.target)?;
                sync_dir(parent(&self.target))
            }
            Place::File => {
                self.move_files()?;
                sync_dir(parent(&self.target))
            }
        }
    }

    /// Moves what belongs beside the file, and then the file.
    fn move_files(&self) -> Result<()> {
        let own = self.target.file_name().unwrap_or_default();
        let stem = self.target.file_stem().unwrap_or_default();
        let mut moves = Vec::new();
        for entry in std::fs::read_dir(self.path()).map_err(Error::io(self.path()))? {
            let name = entry.map_err(Error::io(self.path()))?.file_name();
            let mut beside = stem.to_owned();
            beside.push(".");
            beside.push(&name);
            if name != own {
                moves.push((self.path().join(&name), self.target.with_file_name(beside)));
            }
        }
        moves.push((self.path().join(own), self.target.clone()));
        let publishing = Publishing::begin();
        if let Some((_, taken)) = moves.iter().find(|(_, to)| to.symlink_metadata().is_ok()) {
            return Err(Error::file(taken, "is there already"));
        }
        for (from, to) in &moves {
            std::fs::rename(from, to).map_err(Error::io(to))?;
        }
        drop(publishing);
        Ok(())
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
        if is_of_file_system(&name) {
            continue;
        }
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
    fn a_single_file_appears_with_what_belongs_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.bin");
        let staged = StagedDir::of_file(&target).unwrap();
        assert_eq!(staged.file_name(), Some("out.bin"));
        write_file(&staged.path().join("out.bin"), b"1").unwrap();
        write_file(&staged.path().join("report.json"), b"2").unwrap();
        assert!(!target.exists());
        staged.commit().unwrap();
        assert_eq!(names(dir.path()), ["out.bin", "out.report.json"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"1");
        let error = StagedDir::of_file(&target).unwrap_err().to_string();
        assert!(error.contains("the output file exists"), "{error}");
        // What is beside it is not replaced either.
        std::fs::remove_file(&target).unwrap();
        let staged = StagedDir::of_file(&target).unwrap();
        write_file(&staged.path().join("out.bin"), b"3").unwrap();
        write_file(&staged.path().join("report.json"), b"3").unwrap();
        assert!(staged.commit().is_err());
        assert_eq!(names(dir.path()), ["out.report.json"]);
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
    fn what_belongs_to_the_file_system_makes_no_folder_occupied() {
        let target = tempfile::tempdir().unwrap();
        std::fs::create_dir(target.path().join("lost+found")).unwrap();
        let staged = StagedDir::new(target.path()).unwrap();
        write_file(&staged.path().join("a"), b"1").unwrap();
        staged.commit().unwrap();
        assert_eq!(names(target.path()), ["a", "lost+found"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_is_said_to_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("out");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let error = StagedDir::new(&link).unwrap_err().to_string();
        assert!(
            error.contains("a link to nowhere, which does not exist"),
            "{error}"
        );
        assert_eq!(names(dir.path()), ["out"]);
        // One that leads somewhere is as good as the folder.
        std::fs::create_dir(dir.path().join("nowhere")).unwrap();
        let staged = StagedDir::new(&link).unwrap();
        write_file(&staged.path().join("a"), b"1").unwrap();
        staged.commit().unwrap();
        assert_eq!(names(&dir.path().join("nowhere")), ["a"]);
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
