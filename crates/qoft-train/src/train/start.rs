//! How a run begins: everything is checked, and what it goes on from is read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::agreement;
use super::checkpoint::{self, adapter_device};
use super::digest::Digest;
use super::log::Log;
use super::observer::Observer;
use super::optimizer;
use super::optimizer_kind::OptimizerKind;
use super::plan::{Plan, Steps};
use super::run::{Progress, Run};
use super::saving::Saving;
use super::schedule_free;
use super::scheduler_kind::SchedulerKind;
use super::state::{Identity, TrainerState, resume};
use super::trainer::{Start, Summary, Trainer};
use crate::error::TrainError;
use crate::model::{TrainData, TrainModel};

impl<D: TrainData> Trainer<'_, D> {
    /// Trains the adapter [`ADAPTER`](super::ADAPTER) of `model`, which must be attached on an autodiff device.
    ///
    /// Once `stop` is true, the run writes a checkpoint after the step it is in and ends. It sees it
    /// between the batches of a step and in evaluations, too.
    ///
    /// All processes of [`Trainer::group`] call this with the same of everything, which is checked. What is
    /// written, told and returned is rank 0's to use.
    ///
    /// The adapter is saved before the last evaluation. What goes wrong with log, curve and
    /// checkpoints is told as [`Observer::warning`] and ends nothing.
    ///
    /// # Errors
    ///
    /// [`TrainError`]; what was saved before stays as it is.
    pub fn run<M: TrainModel<Data = D>>(
        &self,
        mut model: M,
        events: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<(M, Summary), TrainError> {
        self.config.validate()?;
        let device = adapter_device(&model)?;
        self.config.validate_on(&device)?;
        self.config
            .validate_evaluation(self.eval_dataset.is_some())?;
        for dataset in std::iter::once(self.dataset).chain(self.eval_dataset) {
            model.check(dataset)?;
        }
        if self.config.gradient_checkpointing && model.blocks().is_none() {
            return Err(TrainError::Config {
                key: "gradient_checkpointing",
                reason: "this model cannot be computed block by block".into(),
            });
        }
        model.regularize(self.config.regularization())?;
        let plan = Plan::new(self.config, self.dataset.rows());
        let identity = self.identity();
        let mut optimizer = optimizer::new(self.config, &model, plan.total);
        let (mut step, mut evaluations) = (0, Vec::new());
        match self.start {
            Start::New => {}
            Start::Weights(folder) => checkpoint::restore_adapter(
                &mut model,
                self.adapter_config,
                folder,
                &device,
                checkpoint::of_another_adapter,
            )?,
            Start::Checkpoint(folder) => {
                let state = TrainerState::read(folder)?;
                let other_data = state.run.data != identity.data;
                // A new run in the same folder would mix its files with those of the old one.
                let elsewhere = folder.parent() != Some(self.folder.path());
                if state.is_finished() && other_data && elsewhere {
                    events.warning(&format!(
                        "{}: all {} steps of its run are done, and its data was another one ({}, \
                         now {}): a new run begins with its weights",
                        folder.display(),
                        state.total,
                        state.run.data,
                        identity.data
                    ));
                } else {
                    state.check(&identity, folder)?;
                    evaluations = state.evaluations.clone();
                    step = check_step(&state, &plan, folder)?;
                    if state.total != plan.total
                        && self.config.lr_scheduler != SchedulerKind::Constant
                    {
                        events.warning(&format!(
                            "{}: its run had {} steps, this one has {}: from step {} on the \
                             learning rates are those of the new length",
                            folder.display(),
                            state.total,
                            plan.total,
                            step + 1
                        ));
                    }
                }
                checkpoint::restore_adapter(
                    &mut model,
                    self.adapter_config,
                    folder,
                    &device,
                    checkpoint::of_another_run,
                )?;
                if step > 0 {
                    let kind = self.config.optimizer;
                    optimizer =
                        checkpoint::restore_optimizer(optimizer, kind, folder, &model, step)?;
                    if kind == OptimizerKind::ScheduleFreeAdamW {
                        schedule_free::take_trained(&mut model, &optimizer)
                            .map_err(|reason| resume(folder, reason))?;
                    }
                }
                if step == plan.total {
                    events.warning(&format!(
                        "{}: all {step} steps of this run are done; nothing is left to train",
                        folder.display()
                    ));
                }
            }
        }
        if self.writes() {
            self.folder.check_later(step)?;
        }
        let steps = Steps::new(self.dataset, self.config, step)?;
        agreement::check(self, &identity, &model, &optimizer, step)?;
        events.begins(step, plan.total);
        let log = match self.writes() {
            true => Log::open(self.folder.path(), step)?,
            false => Log::unwritten(),
        };
        // A checkpoint is written before the evaluation after its step.
        for (at, loss) in log.eval_losses() {
            if evaluations.iter().all(|(known, _)| *known != at as usize) {
                evaluations.push((at as usize, loss));
            }
        }
        evaluations.sort_by_key(|(at, _)| *at);
        let evaluations = agreement::evaluations(self.group, evaluations)?;
        let run = Run {
            trainer: self,
            saving: Saving::new(self, identity, plan, evaluations),
            events,
            stop,
            device: device.without_autodiff(),
            plan,
            schedule: self.config.schedule(plan.total),
            steps,
            log,
            optimizer,
            started: Instant::now(),
            summary: Summary {
                start: step,
                steps: step,
                first_loss: None,
                final_loss: None,
                final_metrics: BTreeMap::new(),
                eval_loss: None,
                eval_metrics: BTreeMap::new(),
                seconds: 0.0,
                tokens: 0,
                interrupted: false,
                stopped_early: false,
                best: None,
                checkpoint: None,
                adapter: None,
            },
            progress: Progress::default(),
        };
        run.finish(model)
    }

    fn identity(&self) -> Identity {
        Identity {
            base: self.base.cloned(),
            data: Digest::of_data(self.dataset),
            rows: self.dataset.rows(),
            adapter: self.adapter_config.to_json(),
            below: self.below.to_vec(),
            config: self.config.clone(),
        }
    }
}

/// The step after which a run goes on; it must be a step of the run.
fn check_step(state: &TrainerState, plan: &Plan, folder: &Path) -> Result<usize, TrainError> {
    if state.step == 0 || state.step > plan.total {
        let reason = format!(
            "it is after step {}, but the run has {} steps",
            state.step, plan.total
        );
        return Err(resume(folder, reason));
    }
    Ok(state.step)
}
