//! The training loop.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use qoft_core::ops::with_activations_in;
use qoft_core::{Error, Walk, adapters};
use qoft_peft::{self as peft, AdapterConfig};

use super::config::TrainConfig;
use super::gradients::StepGradients;
use super::log::{Log, LogRow};
use super::observer::{Observer, StepReport};
use super::plan::{Plan, Steps};
use super::state::{self, TrainerState};
use super::{ADAPTER, optimizer, plot, schedule::Schedule};
use crate::data::Dataset;
use crate::error::TrainError;
use crate::eval::evaluate;
use crate::model::{TrainBatch, TrainData, TrainModel};

/// A training run.
#[derive(Debug, Clone, Copy)]
pub struct Trainer<'a, D = Dataset> {
    /// The settings.
    pub config: &'a TrainConfig,
    /// The configuration of the attached adapter, saved with it.
    pub adapter_config: &'a dyn AdapterConfig,
    /// The other adapters of the model, in words: they stay as they are, and a run that goes on
    /// from a checkpoint must have the same.
    pub frozen: &'a [String],
    /// The training data.
    pub dataset: &'a D,
    /// The evaluation data.
    pub eval_dataset: Option<&'a D>,
    /// Where everything is written; made if absent.
    pub out_dir: &'a Path,
    /// A `checkpoint-N` folder to go on from.
    pub resume_from: Option<&'a Path>,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Steps that are done, those before a resumed run among them.
    pub steps: usize,
    /// Loss of the run's first step.
    pub first_loss: Option<f64>,
    /// Loss of its last step.
    pub final_loss: Option<f64>,
    /// How long it took.
    pub seconds: f64,
    /// Tokens without padding that it went through.
    pub tokens: usize,
    /// Whether it was stopped; then there is a checkpoint, but no final adapter.
    pub interrupted: bool,
    /// The last checkpoint that it wrote.
    pub checkpoint: Option<PathBuf>,
}

impl<D: TrainData> Trainer<'_, D> {
    /// The number of steps of the whole run.
    #[must_use]
    pub fn total_steps(&self) -> usize {
        Plan::new(self.config, self.dataset.rows()).total
    }

    /// Trains the adapter [`ADAPTER`] of `model`, which must be attached on an autodiff device.
    ///
    /// Once `stop` is true, the run writes a checkpoint after the step it is in and ends.
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
        for dataset in std::iter::once(self.dataset).chain(self.eval_dataset) {
            model.check(dataset)?;
        }
        if self.config.gradient_checkpointing && model.blocks().is_none() {
            return Err(TrainError::Config {
                key: "gradient_checkpointing",
                reason: "this model cannot be computed block by block".into(),
            });
        }
        std::fs::create_dir_all(self.out_dir).map_err(Error::io(self.out_dir))?;
        let mut optimizer = optimizer::new(self.config, &model);
        let mut step = 0;
        if let Some(folder) = self.resume_from {
            let rows = self.dataset.rows();
            step = TrainerState::load(folder, rows, self.frozen, self.config)?.step;
            state::restore_adapter(&mut model, folder, &device)?;
            optimizer = state::restore_optimizer(optimizer, folder)?;
        }
        state::check_folder(self.out_dir, step)?;
        let plan = Plan::new(self.config, self.dataset.rows());
        let run = Run {
            trainer: self,
            events,
            device: device.without_autodiff(),
            plan,
            schedule: self.config.schedule(plan.total),
            steps: Steps::new(self.dataset, self.config, step)?,
            log: Log::open(self.out_dir, step)?,
            optimizer,
            started: Instant::now(),
            start: step,
            evaluated: None,
            summary: Summary {
                steps: step,
                first_loss: None,
                final_loss: None,
                seconds: 0.0,
                tokens: 0,
                interrupted: false,
                checkpoint: None,
            },
        };
        run.finish(model, stop)
    }
}

/// The device of the adapter's parameters.
fn adapter_device(model: &impl Walk) -> Result<Device, TrainError> {
    let layers = model.layers();
    let slots = layers
        .iter()
        .filter_map(|(_, layer)| layer.adapters().get(ADAPTER));
    let mut params = slots.flat_map(|slot| slot.params());
    let first = params.next().map(|named| named.param.val().device());
    first.ok_or_else(|| TrainError::NoAdapter(ADAPTER.into()))
}

/// A run under way.
struct Run<'a, D: TrainData> {
    trainer: &'a Trainer<'a, D>,
    events: &'a mut dyn Observer,
    /// Of the inputs.
    device: Device,
    plan: Plan,
    schedule: Schedule,
    steps: Steps<'a, D>,
    log: Log,
    optimizer: ModuleOptimizer,
    started: Instant,
    /// Steps that were done before.
    start: usize,
    /// The step after which the last evaluation was.
    evaluated: Option<usize>,
    summary: Summary,
}

impl<D: TrainData> Run<'_, D> {
    fn finish<M: TrainModel<Data = D>>(
        mut self,
        mut model: M,
        stop: &AtomicBool,
    ) -> Result<(M, Summary), TrainError> {
        let config = self.trainer.config;
        while self.summary.steps < self.plan.total && !self.summary.interrupted {
            model = self.step(model)?;
            let step = self.summary.steps;
            if due(config.eval_steps, step) {
                self.evaluate(&model)?;
            }
            let stopped = stop.load(Ordering::Relaxed) && step < self.plan.total;
            if due(config.save_steps, step) || stopped {
                self.checkpoint(&model)?;
            }
            self.summary.interrupted = stopped;
        }
        if !self.summary.interrupted {
            if self.evaluated != Some(self.summary.steps) {
                self.evaluate(&model)?;
            }
            let out_dir = self.trainer.out_dir;
            peft::save(&model, self.trainer.adapter_config, ADAPTER, out_dir)?;
            self.events.saved(out_dir);
        }
        plot::write(&self.log, self.trainer.out_dir)?;
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        Ok((model, self.summary))
    }

    fn step<M: TrainModel<Data = D>>(&mut self, mut model: M) -> Result<M, TrainError> {
        let config = self.trainer.config;
        let began = Instant::now();
        let batches = self.steps.next();
        let lr = self.schedule.at(self.summary.steps);
        adapters::constrain(&mut model);
        let number = self.summary.steps + 1;
        let (loss, gradients) = self.backward(&model, &batches);
        finite(number, "loss", loss)?;
        let grad_norm = gradients.norm();
        finite(number, "gradient norm", grad_norm)?;
        let gradients = gradients.clipped(grad_norm, config.max_grad_norm);
        // Without gradients the parameters stay as they are.
        model = self.optimizer.step(lr, model, gradients);

        let tokens: usize = batches.iter().map(TrainBatch::tokens).sum();
        let done = (number - self.start) as u32;
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
            log: number.is_multiple_of(config.logging_steps) || done == 1 || left == 0,
        };
        self.log.add(LogRow::new(&report))?;
        self.summary.steps = number;
        self.summary.tokens += tokens;
        self.summary.first_loss.get_or_insert(loss);
        self.summary.final_loss = Some(loss);
        self.events.step(&report);
        Ok(model)
    }

    /// The mean loss of all predicted tokens of `batches`, and its gradients.
    fn backward(
        &self,
        model: &impl TrainModel<Data = D>,
        batches: &[D::Batch],
    ) -> (f64, StepGradients) {
        let config = self.trainer.config;
        let predicted: usize = batches.iter().map(TrainBatch::predicted).sum();
        let blocks = model.blocks().filter(|_| config.gradient_checkpointing);
        let (mut sum, mut gradients) = (0.0, StepGradients::default());
        for batch in batches.iter().filter(|batch| batch.predicted() > 0) {
            let mut sink = |part| gradients.add(part, model);
            let (count, device) = (predicted as f64, &self.device);
            let record = || match blocks {
                Some(blocks) => blocks.backward_by_block(batch, count, device, &mut sink),
                None => {
                    let loss = model.loss(batch, count, device);
                    sink(loss.backward());
                    loss.into_scalar::<f32>()
                }
            };
            sum += f64::from(with_activations_in(config.activation_dtype.into(), record));
        }
        (sum, gradients)
    }

    fn evaluate(&mut self, model: &impl TrainModel<Data = D>) -> Result<(), TrainError> {
        let Some(dataset) = self.trainer.eval_dataset else {
            return Ok(());
        };
        let step = self.summary.steps;
        let events = &mut *self.events;
        let mut progress = |done, total| events.evaluating(done, total);
        let batch_size = self.trainer.config.batch_size;
        let evaluation = evaluate(model, dataset, batch_size, &self.device, &mut progress)?;
        self.log.add(LogRow::Eval {
            step,
            eval_loss: evaluation.loss,
        })?;
        self.evaluated = Some(step);
        self.events.eval(step, &evaluation);
        Ok(())
    }

    fn checkpoint(&mut self, model: &impl Walk) -> Result<(), TrainError> {
        let trainer = self.trainer;
        let step = self.summary.steps;
        let state = TrainerState {
            step,
            epoch: step as f64 / self.plan.steps_per_epoch as f64,
            rows: trainer.dataset.rows(),
            frozen: trainer.frozen.to_vec(),
            config: trainer.config.clone(),
        };
        let folder = state.save(
            model,
            trainer.adapter_config,
            &self.optimizer,
            trainer.out_dir,
        )?;
        plot::write(&self.log, trainer.out_dir)?;
        self.events.saved(&folder);
        self.summary.checkpoint = Some(folder);
        Ok(())
    }
}

fn due(every: Option<usize>, step: usize) -> bool {
    every.is_some_and(|every| step.is_multiple_of(every))
}

fn finite(step: usize, what: &'static str, value: f64) -> Result<(), TrainError> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(TrainError::NotFinite { step, what, value })
    }
}
