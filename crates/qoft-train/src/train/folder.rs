//! The output folder of a run.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use qoft_core::{
    Error, OutputLock, ScratchDir, is_of_file_system, refuse_dangling, remove_leftovers,
};
use qoft_peft::{CONFIG, WEIGHTS};

use super::below::FILE as BELOW;
use super::log::NAME as LOG;
use super::names::{OPTIMIZER, STATE};
use super::plot::NAME as CURVE;
use crate::error::TrainError;

/// Before the number of steps in the name of a checkpoint.
pub(super) const CHECKPOINT: &str = "checkpoint-";
/// Before the number of steps in the name of an adapter that was saved because the run failed.
pub(super) const EMERGENCY: &str = "emergency-";

/// The output folder of a run, which no other run writes into as long as this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    created: bool,
    lock: Option<OutputLock>,
}

impl RunFolder {
    /// Makes the folder unless it is there, and removes what killed runs left half written.
    ///
    /// # Errors
    /// If another process is writing into it, or the file system refuses.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        refuse_dangling(path)?;
        if path.is_file() {
            let reason =
                "a file; the output of a training is a folder, which is made if it is not there";
            return Err(Error::file(path, reason).into());
        }
        let created = !path.exists();
        std::fs::create_dir_all(path).map_err(Error::io(path))?;
        let folder = Self {
            lock: Some(OutputLock::inside(path)?),
            path: path.to_owned(),
            created,
        };
        remove_leftovers(path, &[CHECKPOINT, EMERGENCY]);
        Ok(folder)
    }

    /// The folder of a run that another process writes. It need not be there.
    #[must_use]
    pub fn of_another(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            created: false,
            lock: None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is something in it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_occupied(&self) -> Result<bool, TrainError> {
        let entries = std::fs::read_dir(&self.path).map_err(Error::io(&self.path))?;
        let mut names = entries.flatten().map(|entry| entry.file_name());
        Ok(names.any(|name| name != OutputLock::NAME && !is_of_file_system(&name)))
    }

    /// Whether the last run here was killed.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.lock.as_ref().is_some_and(OutputLock::was_left)
    }

    /// Whether it has a trained adapter.
    #[must_use]
    pub fn has_adapter(&self) -> bool {
        has_adapter(&self.path)
    }

    /// The checkpoint after the most steps.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn last_checkpoint(&self) -> Result<Option<PathBuf>, TrainError> {
        last_checkpoint(&self.path)
    }

    /// Removes the oldest checkpoints beyond `limit`, but neither the last one nor that after `best`
    /// steps.
    pub(super) fn keep_checkpoints(
        &self,
        limit: usize,
        best: Option<usize>,
    ) -> Result<(), TrainError> {
        let mut all = checkpoints(&self.path)?;
        let mut excess = all.len().saturating_sub(limit);
        all.pop();
        for (step, path) in all {
            if excess > 0 && Some(step) != best {
                remove_whole(&self.path, &path)?;
                excess -= 1;
            }
        }
        Ok(())
    }

    /// Whether something of a run is in it: an adapter, a checkpoint, or an adapter that a run saved when it
    /// failed.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn has_run(&self) -> Result<bool, TrainError> {
        Ok(self.has_adapter() || self.parts()?.next().is_some())
    }

    /// Removes what an earlier run left: its adapter, its log, its checkpoints and the files `beside` them, by
    /// their names. What is not a run's stays.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn remove_run(&self, beside: &[&str]) -> Result<(), TrainError> {
        // Without its configuration an adapter is none.
        let own = [CONFIG, WEIGHTS, BELOW, LOG, CURVE];
        for name in own.iter().chain(beside) {
            let path = self.path.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io(&path)(error).into());
                }
                _ => {}
            }
        }
        for part in self.parts()? {
            remove_whole(&self.path, &part)?;
        }
        Ok(())
    }

    /// The folders in it that runs wrote: checkpoints, and adapters of runs that failed. One with something else
    /// in it is somebody's own.
    fn parts(&self) -> Result<impl Iterator<Item = PathBuf>, TrainError> {
        let entries = std::fs::read_dir(&self.path).map_err(Error::io(&self.path))?;
        let folders = entries.flatten().map(|entry| entry.path());
        let parts = folders.filter(|path| is_checkpoint(path) || is_emergency(path));
        let parts = parts.filter(|path| has_an_adapter_alone(path));
        Ok(parts.collect::<Vec<_>>().into_iter())
    }

    /// Fails if it has a checkpoint of a step after `step`, which the run would meet again.
    pub(super) fn check_later(&self, step: usize) -> Result<(), TrainError> {
        match checkpoints(&self.path)?.pop() {
            Some((later, path)) if later > step => Err(TrainError::LaterCheckpoint { path }),
            _ => Ok(()),
        }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        self.lock = None;
        if self.created {
            // Of a run that wrote nothing, nothing stays. It fails where there is something.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

/// The checkpoint after the most steps in the output folder of a run.
///
/// # Errors
/// If the folder cannot be read.
pub fn last_checkpoint(folder: &Path) -> Result<Option<PathBuf>, TrainError> {
    Ok(checkpoints(folder)?.pop().map(|(_, path)| path))
}

/// The checkpoints of the same run before this one, the last of them first.
///
/// # Errors
/// If the folder of the run cannot be read.
pub fn earlier_checkpoints(checkpoint: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let Some(steps) = steps_in_name(checkpoint) else {
        return Ok(Vec::new());
    };
    // `checkpoint-8` lies in the working directory.
    let run = checkpoint.parent().unwrap_or(Path::new(""));
    let run = match run.as_os_str().is_empty() {
        true => Path::new("."),
        false => run,
    };
    let all = checkpoints(run)?.into_iter().rev();
    let earlier = all.filter(|(other, _)| *other < steps);
    Ok(earlier.map(|(_, path)| path).collect())
}

/// Whether a folder is called as those are in which a run that failed saves its adapter.
#[must_use]
pub fn is_emergency(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(EMERGENCY))
}

/// Whether a folder is called as the checkpoints of a run are.
#[must_use]
pub fn is_checkpoint(folder: &Path) -> bool {
    steps_in_name(folder).is_some()
}

/// The steps that a folder's name says it is after.
pub(super) fn steps_in_name(folder: &Path) -> Option<usize> {
    let name = folder.file_name()?.to_str()?;
    name.strip_prefix(CHECKPOINT)?.parse().ok()
}

/// Whether a folder has a trained adapter.
fn has_adapter(folder: &Path) -> bool {
    [CONFIG, WEIGHTS]
        .iter()
        .all(|name| folder.join(name).exists())
}

/// Whether a folder is one, has an adapter, and nothing that a run does not write beside it.
fn has_an_adapter_alone(folder: &Path) -> bool {
    const FILES: [&str; 5] = [CONFIG, WEIGHTS, BELOW, OPTIMIZER, STATE];
    let is_folder = folder.symlink_metadata().is_ok_and(|data| data.is_dir());
    let Ok(mut entries) = std::fs::read_dir(folder) else {
        return false;
    };
    is_folder
        && has_adapter(folder)
        && entries.all(|entry| {
            entry.is_ok_and(|entry| {
                let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
                is_file && FILES.iter().any(|name| entry.file_name() == *name)
            })
        })
}

/// Removes a checkpoint, which is no longer called one as soon as something of it is gone.
fn remove_whole(folder: &Path, checkpoint: &Path) -> Result<(), TrainError> {
    let scratch = ScratchDir::new(folder, &format!("{CHECKPOINT}old.partial"))?;
    let moved = scratch.path().join("removed");
    std::fs::rename(checkpoint, moved).map_err(Error::io(checkpoint))?;
    Ok(())
}

/// All checkpoints in a folder, by their steps.
fn checkpoints(folder: &Path) -> Result<Vec<(usize, PathBuf)>, TrainError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if let Some(steps) = steps_in_name(&path) {
            found.push((steps, path));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_checkpoints_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["checkpoint-4", "checkpoint-12", "checkpoint-x", "other-99"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let folder = RunFolder::open(dir.path()).unwrap();
        let last = folder.last_checkpoint().unwrap().unwrap();
        assert!(last.ends_with("checkpoint-12"));
        folder.check_later(12).unwrap();
        assert!(folder.check_later(11).is_err());
        let earlier = earlier_checkpoints(&last).unwrap();
        assert_eq!(earlier, [dir.path().join("checkpoint-4")]);
        assert!(earlier_checkpoints(&earlier[0]).unwrap().is_empty());
    }

    #[test]
    fn a_folder_belongs_to_one_run_and_vanishes_if_nothing_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let folder = RunFolder::open(&path).unwrap();
        assert!(!folder.is_occupied().unwrap());
        std::fs::create_dir(path.join("lost+found")).unwrap();
        assert!(!folder.is_occupied().unwrap());
        std::fs::remove_dir(path.join("lost+found")).unwrap();
        let error = RunFolder::open(&path).unwrap_err().to_string();
        assert!(error.contains("another run"), "{error}");
        drop(folder);
        assert!(!path.exists());
        let folder = RunFolder::open(&path).unwrap();
        std::fs::write(path.join("a"), "1").unwrap();
        assert!(folder.is_occupied().unwrap());
        drop(folder);
        assert!(path.join("a").exists());
    }

    #[test]
    fn what_a_run_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("mine"), "1").unwrap();
        let make = |folder: &str, files: &[&str]| {
            let folder = dir.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            files
                .iter()
                .for_each(|name| std::fs::write(folder.join(name), "1").unwrap());
        };
        make("checkpoint-mine", &[]);
        make("checkpoint-12", &["thesis"]);
        make("emergency-plan", &["x"]);
        make("checkpoint-7", &[CONFIG, WEIGHTS, "notes"]);
        assert!(!folder.has_run().unwrap());
        make("checkpoint-2", &[CONFIG, WEIGHTS, OPTIMIZER, STATE]);
        make("emergency-3", &[CONFIG, WEIGHTS]);
        assert!(folder.has_run().unwrap());
        for name in [CONFIG, WEIGHTS, LOG] {
            std::fs::write(dir.path().join(name), "1").unwrap();
        }
        folder.remove_run(&[]).unwrap();
        assert!(!folder.has_run().unwrap());
        drop(folder);
        let left = std::fs::read_dir(dir.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mine = [
            "checkpoint-12",
            "checkpoint-7",
            "checkpoint-mine",
            "emergency-plan",
            "mine",
        ];
        assert_eq!(left, mine);
    }

    #[test]
    fn what_killed_runs_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".checkpoint-4.partial-aB3dE6", "checkpoint-2"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in [".checkpoint-4.lock", ".qoft.tmp-aB3dE6", "log.jsonl"] {
            std::fs::write(dir.path().join(name), "1").unwrap();
        }
        drop(RunFolder::open(dir.path()).unwrap());
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["checkpoint-2", "log.jsonl"]);
    }
}
