//! What a run writes beside its log: checkpoints, the adapter, and what is left if it fails. Of several
//! processes rank 0 writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::optim::ModuleOptimizer;
use qoft_core::{Error, StagedDir};
use qoft_peft::{CONFIG, WEIGHTS};

use super::best::Standing;
use super::digest::Digest;
use super::folder::{CHECKPOINT, EMERGENCY};
use super::observer::Observer;
use super::plan::Plan;
use super::state::{Identity, TrainerState};
use super::trainer::Trainer;
use super::{checkpoint, rescue};
use crate::error::TrainError;
use crate::model::TrainModel;

/// Steps until a checkpoint that could not be written is tried again; then twice as many, and so on.
const RETRY: usize = 1;
/// Adapters that runs into the same folder left when they failed after the same step.
const EMERGENCIES: usize = 1000;

/// Writes into the folder of a run.
pub(super) struct Saving<'a, D> {
    trainer: &'a Trainer<'a, D>,
    identity: Identity,
    plan: Plan,
    /// The last checkpoint, and the step that it is after.
    last: Option<(usize, PathBuf)>,
    /// After which step an evaluation was, and its loss.
    evaluations: Vec<(usize, f64)>,
    /// When a checkpoint that failed is tried again, and how many steps later after that.
    retry: Option<(usize, usize)>,
}

impl<'a, D> Saving<'a, D> {
    pub(super) fn new(
        trainer: &'a Trainer<'a, D>,
        identity: Identity,
        plan: Plan,
        evaluations: Vec<(usize, f64)>,
    ) -> Self {
        Self {
            trainer,
            identity,
            plan,
            last: None,
            evaluations,
            retry: None,
        }
    }

    /// The last checkpoint that was written.
    pub(super) fn last(&self) -> Option<&Path> {
        self.last.as_ref().map(|(_, folder)| folder.as_path())
    }

    /// Remembers an evaluation.
    pub(super) fn evaluated(&mut self, step: usize, loss: f64) {
        self.evaluations.push((step, loss));
    }

    /// Whether there was an evaluation after `step` steps.
    pub(super) fn is_evaluated(&self, step: usize) -> bool {
        self.evaluations.iter().any(|(at, _)| *at == step)
    }

    /// How the evaluations stand.
    pub(super) fn standing(&self) -> Standing {
        Standing::of(&self.evaluations, self.trainer.config)
    }

    /// Removes checkpoints beyond the limit, but neither the last one nor that of the best evaluation.
    pub(super) fn forget_old(&self, events: &mut dyn Observer) {
        let limit = self.trainer.config.save_total_limit;
        if let Some(limit) = limit.filter(|_| self.trainer.writes()) {
            let best = self.standing().best.map(|(step, _)| step);
            if let Err(error) = self.trainer.folder.keep_checkpoints(limit, best) {
                events.warning(&format!("an old checkpoint stays: {error}"));
            }
        }
    }

    /// The checkpoint after `step` steps, if it is there.
    pub(super) fn checkpoint_after(&self, step: usize) -> Option<PathBuf> {
        let folder = self.folder(CHECKPOINT, step);
        folder.is_dir().then_some(folder)
    }

    /// Whether a checkpoint is to be written after `step` steps.
    pub(super) fn is_due(&self, step: usize) -> bool {
        self.trainer.config.saves_after(step, &self.plan)
            || self.retry.is_some_and(|(at, _)| at <= step)
    }

    /// Writes a checkpoint; if that fails, the run goes on, and it is tried again later.
    pub(super) fn checkpoint(
        &mut self,
        step: usize,
        model: &impl TrainModel,
        optimizer: &ModuleOptimizer,
        events: &mut dyn Observer,
    ) {
        if !self.trainer.writes() {
            return;
        }
        let folder = self.folder(CHECKPOINT, step);
        match self.write(step, model, optimizer, &folder) {
            Ok(()) => self.written(step, folder, events),
            Err(error) => {
                let wait = self.retry.map_or(RETRY, |(_, wait)| wait * 2);
                self.retry = Some((step + wait, wait));
                events.warning(&format!(
                    "no checkpoint after step {step}: {error}; the run goes on and tries again"
                ));
            }
        }
    }

    /// Writes the checkpoint of a run that stops, if there is none of this step.
    pub(super) fn last_checkpoint(
        &mut self,
        step: usize,
        model: &impl TrainModel,
        optimizer: &ModuleOptimizer,
        events: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let is_there = self.last.as_ref().is_some_and(|(last, _)| *last == step);
        if is_there || !self.trainer.writes() {
            return Ok(());
        }
        let folder = self.folder(CHECKPOINT, step);
        rescue::save(&folder, events, &mut |folder| {
            self.write(step, model, optimizer, folder)
        })?;
        self.written(step, folder, events);
        Ok(())
    }

    /// Writes the trained adapter.
    pub(super) fn adapter(
        &self,
        model: &impl TrainModel,
        events: &mut dyn Observer,
    ) -> Result<PathBuf, TrainError> {
        let folder = self.trainer.folder.path();
        if !self.trainer.writes() {
            return Ok(folder.to_owned());
        }
        rescue::save(folder, events, &mut |folder| {
            self.write_adapter(model, folder)
        })?;
        events.saved(folder);
        Ok(folder.to_owned())
    }

    /// Writes the adapter of a run that failed, as it was after `step` steps, unless the same run has
    /// left it before, and returns where it is.
    pub(super) fn emergency(
        &self,
        step: usize,
        model: &impl TrainModel,
        events: &mut dyn Observer,
    ) -> Option<PathBuf> {
        if !self.trainer.writes() {
            return None;
        }
        let first = self.folder(EMERGENCY, step);
        let numbered = (2..EMERGENCIES).map(move |number| {
            let name = format!("{EMERGENCY}{step}-{number}");
            self.trainer.folder.path().join(name)
        });
        let names = std::iter::once(first).chain(numbered);
        let is_taken = |name: &PathBuf| name.symlink_metadata().is_ok();
        let taken: Vec<PathBuf> = names.clone().take_while(is_taken).collect();
        let folder = names.clone().nth(taken.len())?;
        let mut same = None;
        let written = rescue::save(&folder, events, &mut |folder| {
            let staged = StagedDir::new(folder)?;
            self.write_adapter(model, staged.path())?;
            same = taken
                .iter()
                .find(|left| is_same_adapter(left, staged.path()));
            match same {
                Some(_) => Ok(()),
                None => staged.commit(),
            }
        });
        match written {
            Ok(()) => Some(same.cloned().unwrap_or(folder)),
            Err(TrainError::NotSaved {
                rescued: Some(folder),
                ..
            }) => Some(folder),
            Err(error) => {
                events.warning(&error.to_string());
                None
            }
        }
    }

    fn folder(&self, prefix: &str, step: usize) -> PathBuf {
        self.trainer.folder.path().join(format!("{prefix}{step}"))
    }

    fn written(&mut self, step: usize, folder: PathBuf, events: &mut dyn Observer) {
        events.saved(&folder);
        self.last = Some((step, folder));
        self.retry = None;
        self.forget_old(events);
    }

    fn write(
        &self,
        step: usize,
        model: &impl TrainModel,
        optimizer: &ModuleOptimizer,
        folder: &Path,
    ) -> Result<(), Error> {
        let state = TrainerState {
            step,
            total: self.plan.total,
            epoch: step as f64 / self.plan.steps_per_epoch as f64,
            run: self.identity.clone(),
            evaluations: self.evaluations.clone(),
            files: BTreeMap::new(),
        };
        let config = self.trainer.adapter_config;
        checkpoint::save(state, model, config, optimizer, folder)
    }

    fn write_adapter(&self, model: &impl TrainModel, folder: &Path) -> Result<(), Error> {
        let trainer = self.trainer;
        checkpoint::save_adapter(model, trainer.adapter_config, trainer.below, folder)
    }
}

/// Whether two folders have the same adapter.
fn is_same_adapter(a: &Path, b: &Path) -> bool {
    [CONFIG, WEIGHTS].iter().all(|name| {
        let [a, b] = [a, b].map(|folder| Digest::of_file(&folder.join(name)).ok());
        a.is_some() && a == b
    })
}
