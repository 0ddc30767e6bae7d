//! A run under way.

use std::borrow::Cow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use qoft_core::kernels::FloatFormat;
use qoft_core::{Draw, adapters};

use super::accumulation::Accumulation;
use super::best::Standing;
use super::checkpoint::{adapter_device, of_another_run, restore_adapter};
use super::diverged;
use super::gradients::StepGradients;
use super::log::{Log, LogRow};
use super::observer::{Observer, StepReport};
use super::optimizer_kind::OptimizerKind;
use super::plan::{Plan, Steps};
use super::plot;
use super::saving::Saving;
use super::schedule::Schedule;
use super::schedule_free;
use super::trainer::{Summary, Trainer};
use crate::error::{NotFinite, TrainError};
use crate::eval::evaluate_among;
use crate::group;
use crate::metrics::{BatchLoss, Metrics};
use crate::model::{TrainBatch, TrainData, TrainModel};

/// A run under way.
pub(super) struct Run<'a, M: TrainModel> {
    pub(super) trainer: &'a Trainer<'a, M::Data>,
    pub(super) saving: Saving<'a, M::Data>,
    pub(super) events: &'a mut dyn Observer,
    pub(super) stop: &'a AtomicBool,
    /// Of the inputs.
    pub(super) device: Device,
    pub(super) plan: Plan,
    pub(super) schedule: Schedule,
    pub(super) steps: Steps<'a, M::Data>,
    pub(super) log: Log,
    pub(super) optimizer: ModuleOptimizer,
    pub(super) started: Instant,
    pub(super) summary: Summary,
    pub(super) progress: Progress<M>,
}

/// What a run remembers from one step to the next.
pub(super) struct Progress<M> {
    /// The model with which the last finite loss was computed.
    good: Option<M>,
    /// An evaluation that gave no number, and what it gave.
    failed_evaluation: Option<(usize, f64)>,
    /// The last step and the norm of its gradients.
    grad_norm: (usize, f64),
}

impl<M> Default for Progress<M> {
    fn default() -> Self {
        Self {
            good: None,
            failed_evaluation: None,
            grad_norm: (0, 0.0),
        }
    }
}

/// A step that is not done, since the run is to stop.
struct Abandoned;

impl<M: TrainModel> Run<'_, M> {
    pub(super) fn finish(mut self, mut model: M) -> Result<(M, Summary), TrainError> {
        let dtype = self.trainer.config.compute_dtype;
        model.walk_mut("", &mut |_, layer| layer.set_compute_dtype(dtype));
        let format = self.trainer.config.activation_dtype.into();
        adapters::keep_activations_in(&mut model, format);
        let result = self.steps(&mut model);
        adapters::keep_activations_in(&mut model, FloatFormat::F32);
        // What was measured is written in any case.
        self.log.close(self.events);
        self.plot();
        result?;
        if let Some((step, loss)) = self.progress.failed_evaluation {
            return Err(TrainError::EvaluationNotFinite {
                step: Some(step),
                loss,
            });
        }
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        self.summary.checkpoint = self.saving.last().map(Path::to_owned);
        Ok((model, self.summary))
    }

    fn steps(&mut self, model: &mut M) -> Result<(), TrainError> {
        let config = self.trainer.config;
        self.evaluate_at_start(model)?;
        self.summary.stopped_early = self.judge(model)?.is_over(config);
        while self.summary.steps < self.plan.total
            && !self.summary.stopped_early
            && !self.stopping()?
        {
            match self.step(model.clone())? {
                Ok(next) => *model = next,
                Err(Abandoned) => break,
            }
            let step = self.summary.steps;
            if self.saving.is_due(step) {
                self.checkpoint(model)?;
            }
            // After the last step, the adapter is saved before.
            if config.evaluates_after(step, &self.plan) && step < self.plan.total {
                self.evaluate(&*self.result_of(model)?)?;
                self.summary.stopped_early = self.judge(model)?.is_over(config);
            }
        }
        let step = self.summary.steps;
        if step < self.plan.total && !self.summary.stopped_early {
            self.summary.interrupted = true;
            if step > self.summary.start {
                self.check_parameters(model)?;
                let shown = self.result_of(model)?;
                let (optimizer, events) = (&self.optimizer, &mut *self.events);
                self.saving
                    .last_checkpoint(step, &*shown, optimizer, events)?;
            }
            return Ok(());
        }
        self.check_parameters(model)?;
        if let Cow::Owned(average) = self.result_of(model)? {
            *model = average;
        }
        self.summary.adapter = Some(self.saving.adapter(model, self.events)?);
        if !self.is_evaluated() {
            self.evaluate(model)?;
        }
        self.take_best(model)?;
        self.summary.interrupted = self.stopping()? && !self.is_evaluated();
        Ok(())
    }

    /// How the evaluations stand; the best model is in a checkpoint if it is to be the result.
    fn judge(&mut self, model: &M) -> Result<Standing, TrainError> {
        let (standing, step) = (self.saving.standing(), self.summary.steps);
        if self.trainer.config.load_best_model_at_end
            && standing.best.is_some_and(|(best, _)| best == step)
            && self.saving.checkpoint_after(step).is_none()
        {
            self.checkpoint(model)?;
        }
        Ok(standing)
    }

    /// Makes the best model the result, if that is wanted and it is not the last one.
    fn take_best(&mut self, model: &mut M) -> Result<(), TrainError> {
        if !self.trainer.writes() {
            return Ok(());
        }
        self.saving.forget_old(self.events);
        let best = self.saving.standing().best;
        let best = best.filter(|_| self.trainer.config.load_best_model_at_end);
        let Some((best, loss)) = best.filter(|(best, _)| *best != self.summary.steps) else {
            return Ok(());
        };
        let Some(folder) = self.saving.checkpoint_after(best) else {
            self.events.warning(&format!(
                "the best evaluation was after step {best}, of which there is no checkpoint: the adapter is \
                 the last one"
            ));
            return Ok(());
        };
        let device = adapter_device(model)?;
        let config = self.trainer.adapter_config;
        restore_adapter(model, config, &folder, &device, of_another_run)?;
        self.summary.adapter = Some(self.saving.adapter(model, self.events)?);
        self.summary.best = Some(best);
        self.summary.eval_loss = Some(loss);
        self.summary.eval_metrics = self.log.eval_metrics(best);
        Ok(())
    }

    /// The model as it is evaluated and saved: optimizers that average train other values.
    fn result_of<'m>(&self, model: &'m M) -> Result<Cow<'m, M>, TrainError> {
        let config = self.trainer.config;
        if config.optimizer != OptimizerKind::ScheduleFreeAdamW {
            return Ok(Cow::Borrowed(model));
        }
        let mut result = model.clone();
        schedule_free::take_average(&mut result, &self.optimizer, config.betas()[0])
            .map_err(TrainError::Optimizer)?;
        Ok(Cow::Owned(result))
    }

    /// Whether one of the processes was asked to stop, which all of them learn at the same place.
    fn stopping(&self) -> Result<bool, TrainError> {
        let own = self.stop.load(Ordering::Relaxed);
        Ok(group::any(self.trainer.group, own)?)
    }

    /// Draws the curve of the losses.
    fn plot(&mut self) {
        if !self.trainer.writes() {
            return;
        }
        if let Err(error) = plot::write(&self.log, self.trainer.folder.path()) {
            self.events.warning(&error.to_string());
        }
    }

    fn is_evaluated(&self) -> bool {
        let step = self.summary.steps;
        let failed = self.progress.failed_evaluation;
        !self.trainer.evaluates()
            || self.saving.is_evaluated(step)
            || failed.is_some_and(|(at, _)| at == step)
    }

    /// The evaluation before the first step, or the one that a run missed which was killed.
    fn evaluate_at_start(&mut self, model: &M) -> Result<(), TrainError> {
        let (config, step) = (self.trainer.config, self.summary.steps);
        let wanted = match step {
            0 => config.evaluates_at_start(),
            step => config.evaluates_after(step, &self.plan) && step < self.plan.total,
        };
        if wanted && !self.saving.is_evaluated(step) {
            self.evaluate(&*self.result_of(model)?)?;
        }
        Ok(())
    }

    fn step(&mut self, before: M) -> Result<Result<M, Abandoned>, TrainError> {
        let config = self.trainer.config;
        let began = Instant::now();
        let batches = self.steps.next();
        let step = self.summary.steps;
        let own_rate = self.trainer.rates.get(step).copied();
        let lr = own_rate.unwrap_or_else(|| self.schedule.at(step));
        let mut model = before.clone();
        let number = step + 1;
        let (mut loss, mut metrics) = (0.0, Metrics::default());
        let group = self.trainer.group;
        let before_that = self.progress.grad_norm;
        let mut sum = Accumulation::new(group, &model, &self.device, before_that);
        let predicted: usize = batches.iter().map(TrainBatch::predicted).sum();
        let rounds = batches.chunks(group.size());
        for (first, round) in rounds.enumerate().map(|(at, r)| (at * group.size(), r)) {
            if first > 0 && self.stopping()? {
                return Ok(Err(Abandoned));
            }
            let mut own = None;
            for (rank, batch) in round.iter().enumerate() {
                // Models count the batches of a step, also those that others compute.
                adapters::begin(&mut model, Draw::new(config.seed, step, first + rank));
                if rank == group.rank() && batch.predicted() > 0 {
                    own = Some(self.backward(&model, batch, predicted));
                }
            }
            let found = sum.round(own)?;
            let learning = (first..)
                .zip(round)
                .filter(|(_, batch)| batch.predicted() > 0);
            for ((index, batch), found) in learning.zip(found) {
                metrics.merge(&found.metrics);
                loss += found.loss;
                if !f64::is_finite(loss) {
                    let source = diverged::source_of_loss(&model, batch, &self.device);
                    let good = self.progress.good.take().zip(number.checked_sub(2));
                    return Err(self.diverged("loss", loss, source, Some(index), good));
                }
            }
        }
        let gradients = sum.finish()?;
        let grad_norm = gradients.norm();
        if !grad_norm.is_finite() {
            let source = gradients.source(&model);
            let source = source.unwrap_or_else(|| "the sum of all gradients".into());
            let good = Some((before, number - 1));
            return Err(self.diverged("gradient norm", grad_norm, source, None, good));
        }
        self.progress.good = Some(before);
        self.progress.grad_norm = (number, grad_norm);
        let gradients = gradients.clipped(grad_norm, config.max_grad_norm);
        // Without gradients the parameters stay as they are.
        model = self.optimizer.step(lr, model, gradients);

        let tokens: usize = batches.iter().map(TrainBatch::tokens).sum();
        let done = (number - self.summary.start) as u32;
        let left = (self.plan.total - number) as u32;
        let seconds = began.elapsed().as_secs_f64();
        let report = StepReport {
            step: number,
            total: self.plan.total,
            loss,
            lr,
            grad_norm,
            seconds,
            tokens_per_second: tokens as f64 / seconds.max(1e-9),
            eta: self.started.elapsed() / done * left,
            log: config.logs_after(number, &self.plan) || done == 1 || left == 0,
            metrics: metrics.means(),
        };
        self.log.add(LogRow::new(&report), self.events);
        self.summary.steps = number;
        self.summary.tokens += tokens;
        self.summary.first_loss.get_or_insert(loss);
        self.summary.final_loss = Some(loss);
        self.summary.final_metrics.clone_from(&report.metrics);
        self.events.step(&report);
        Ok(Ok(model))
    }

    /// The loss of a batch, divided by the predicted tokens of the step, and its gradients.
    fn backward(
        &self,
        model: &M,
        batch: &<M::Data as TrainData>::Batch,
        predicted: usize,
    ) -> (BatchLoss<f64>, StepGradients) {
        let config = self.trainer.config;
        let blocks = model.blocks().filter(|_| config.gradient_checkpointing);
        let mut gradients = StepGradients::default();
        let mut sink = |part| gradients.add(part, model);
        let (count, device) = (predicted as f64, &self.device);
        let found = match blocks {
            Some(blocks) => blocks.backward_by_block(batch, count, device, &mut sink),
            None => {
                let found = model.training_loss(batch, count, device);
                sink(found.loss.backward());
                BatchLoss::new(found.loss.into_scalar::<f32>(), found.metrics)
            }
        };
        let found = BatchLoss::new(f64::from(found.loss), found.metrics);
        (found, gradients)
    }

    fn evaluate(&mut self, model: &M) -> Result<(), TrainError> {
        let Some(dataset) = self
            .trainer
            .eval_dataset
            .filter(|_| self.trainer.evaluates())
        else {
            return Ok(());
        };
        let step = self.summary.steps;
        let events = &mut *self.events;
        let mut progress = |done, total| events.evaluating(done, total);
        let config = self.trainer.config;
        let batch_size = config.eval_batch_size.unwrap_or(config.batch_size);
        let result = evaluate_among(
            self.trainer.group,
            model,
            dataset,
            batch_size,
            &self.device,
            self.stop,
            &mut progress,
        );
        match result {
            Ok(evaluation) => {
                let eval_loss = evaluation.loss;
                self.summary.eval_loss = Some(eval_loss);
                self.summary.eval_metrics.clone_from(&evaluation.metrics);
                let row = LogRow::evaluation(step, &evaluation);
                self.log.add(row, self.events);
                self.saving.evaluated(step, eval_loss);
                self.events.eval(step, &evaluation);
            }
            // The run sees it too.
            Err(TrainError::Stopped) => {}
            // What is trained may still be good, and is saved first.
            Err(TrainError::EvaluationNotFinite { loss, .. }) => {
                let error = TrainError::EvaluationNotFinite {
                    step: Some(step),
                    loss,
                };
                self.events.warning(&error.to_string());
                self.progress.failed_evaluation = Some((step, loss));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn checkpoint(&mut self, model: &M) -> Result<(), TrainError> {
        self.check_parameters(model)?;
        let shown = self.result_of(model)?;
        let (step, optimizer) = (self.summary.steps, &self.optimizer);
        self.saving
            .checkpoint(step, &*shown, optimizer, self.events);
        self.plot();
        Ok(())
    }

    /// Fails if the last update made a parameter infinite or not a number.
    fn check_parameters(&mut self, model: &M) -> Result<(), TrainError> {
        match diverged::parameter(model) {
            None => Ok(()),
            Some(source) => {
                let good = self.progress.good.take();
                let good = good.zip(self.summary.steps.checked_sub(1));
                Err(self.diverged("update", f64::NAN, source, None, good))
            }
        }
    }

    /// The error of a step, after the last good parameters were saved: those after some steps.
    fn diverged(
        &mut self,
        what: &'static str,
        value: f64,
        source: String,
        batch: Option<usize>,
        good: Option<(M, usize)>,
    ) -> TrainError {
        let trainer = self.trainer;
        let step = match what {
            "update" => self.summary.steps,
            _ => self.summary.steps + 1,
        };
        let rows = Steps::rows(trainer.dataset, trainer.config, step.saturating_sub(1));
        let good = good.filter(|(_, steps)| *steps > self.summary.start);
        let saved = good.and_then(|(model, steps)| {
            let folder = self.saving.emergency(steps, &model, self.events)?;
            Some((folder, steps))
        });
        let rows = match batch {
            Some(index) => rows.get(index).cloned().unwrap_or_default(),
            None => rows.concat(),
        };
        TrainError::NotFinite(Box::new(NotFinite {
            step,
            what,
            value,
            source,
            batch: batch.map(|index| (index + 1, trainer.config.gradient_accumulation_steps)),
            rows: trainer.dataset.row_names(&rows),
            trained: step > 1,
            saved,
        }))
    }
}
