//! What two steps need.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use qoft::train::train::{Observer, RunFolder, StepReport, Strategy, TrainConfig};

use super::memory::Watch;
use crate::commands::train::{Learned, Setup};
use crate::stop::{self, Graceful, Stopped};

/// Steps of a measurement: the first has to make room for everything.
const STEPS: usize = 2;

/// What was measured of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Its tokens, padding among them.
    pub tokens: usize,
    /// The highest resident set, in bytes.
    pub peak: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Trains a model for two steps on batches of some shape.
pub struct Probe<'a, D: Learned> {
    /// The run that is to be estimated.
    pub setup: &'a Setup<D>,
    /// Its model, which is there between two measurements.
    pub model: Option<D::Model>,
}

impl<D: Learned> Probe<'_, D> {
    /// Measures batches of `rows` rows of `length` tokens.
    pub fn measure(
        &mut self,
        (rows, length): (usize, usize),
        config: &TrainConfig,
    ) -> Result<Measured> {
        let batches = config.gradient_accumulation_steps.clamp(1, 2);
        let (batch_size, data) = self.setup.data.dataset.like((rows, length), batches);
        let mut config = config.clone();
        config.batch_size = batch_size;
        config.gradient_accumulation_steps = batches;
        config.max_steps = Some(STEPS);
        config.save_strategy = Some(Strategy::No);
        config.shuffle = false;
        let scratch = tempfile::tempdir().context("a folder for the measurement")?;
        let folder = RunFolder::open(&scratch.path().join("run"))?;
        let mut trainer = self.setup.trainer(&folder);
        (trainer.config, trainer.dataset, trainer.eval_dataset) = (&config, &data, None);
        let model = self
            .model
            .take()
            .context("the model of a measurement that failed")?;
        let mut events = LastStep::default();
        let graceful = Graceful::begin();
        let watch = Watch::begin()?;
        let result = trainer.run(model, &mut events, stop::requested());
        let peak = watch.end();
        drop(graceful);
        self.model = Some(result?.0);
        if stop::requested().load(Ordering::SeqCst) {
            return Err(Stopped.into());
        }
        Ok(Measured {
            tokens: rows * length,
            peak,
            seconds: events.seconds / batches as f64,
        })
    }
}

/// How long the last step took.
#[derive(Debug, Default)]
struct LastStep {
    seconds: f64,
}

impl Observer for LastStep {
    fn step(&mut self, report: &StepReport) {
        self.seconds = report.seconds;
    }
}
