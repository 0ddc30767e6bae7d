//! A model that learns from preferences.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::tensor::{Device, Gradients, Tensor};
use qoft_core::{Layer, Walk, adapters};
use qoft_models::{CausalLm, Losses, Tokens, TrainingBatch};
use qoft_peft::ModelFacts;

use super::batch::{PreferenceBatch, row_targets};
use super::config::PreferenceConfig;
use super::data::PreferenceData;
use super::objective::{Evidence, Outcome, Said, outcome};
use crate::data::Batch;
use crate::error::TrainError;
use crate::inputs::{check_lengths, tokens};
use crate::metrics::{BatchLoss, Metrics};
use crate::model::{TrainBlocks, TrainModel, model_facts};
use crate::regularization::Regularization;

/// A model with an adapter that learns from preferences, and the reference beside it: the same weights
/// without the adapter.
#[derive(Module, Debug)]
pub struct PreferenceModel {
    model: CausalLm,
    #[module(skip)]
    settings: Arc<Settings>,
}

#[derive(Debug)]
struct Settings {
    config: PreferenceConfig,
    reference: CausalLm,
}

impl Walk for PreferenceModel {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        self.model.walk(path, visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        self.model.walk_mut(path, visit);
    }
}

/// Rows as a model is to compute them.
struct Pass {
    tokens: Tokens,
    targets: qoft_models::Targets,
    lengths: Vec<f64>,
}

impl PreferenceModel {
    /// `model` with its adapter `adapter`, which trains.
    ///
    /// # Errors
    /// If there is no such adapter.
    pub fn new(
        model: CausalLm,
        adapter: &str,
        config: PreferenceConfig,
    ) -> Result<Self, TrainError> {
        let mut reference = model.valid();
        adapters::delete(&mut reference, adapter)?;
        let settings = Arc::new(Settings { config, reference });
        Ok(Self { model, settings })
    }

    /// The model that learns.
    #[must_use]
    pub fn into_model(self) -> CausalLm {
        self.model
    }

    fn pass(&self, batch: &Batch, device: &Device) -> Pass {
        let (targets, lengths) = row_targets(batch, self.settings.config.stage);
        Pass {
            tokens: tokens(batch, device),
            targets,
            lengths,
        }
    }

    /// The log-probabilities that the reference has for the rows of a batch.
    fn reference_of(&self, batch: &Batch, device: &Device) -> Vec<f64> {
        let pass = self.pass(batch, device);
        let losses = self
            .settings
            .reference
            .losses(pass.tokens, pass.targets, 1.0);
        said(&losses).log_probabilities
    }

    /// Computes what the reference says of each row of `data`, once and for all. `progress` is called after
    /// each batch of `batch_size` rows with the numbers of batches done and of all.
    ///
    /// # Errors
    /// [`TrainError::Stopped`] once `stop` is true, and [`TrainError::Config`] for a `batch_size` of 0.
    pub fn compute_reference(
        &self,
        data: &mut PreferenceData,
        batch_size: usize,
        device: &Device,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), TrainError> {
        let size = NonZeroUsize::new(batch_size).ok_or(TrainError::Config {
            key: "batch_size",
            reason: "must be at least 1".into(),
        })?;
        let mut found = Vec::with_capacity(data.rows.examples.len());
        let batches = data.batches_of_file(size);
        let total = batches.len();
        for (done, batch) in batches.enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(TrainError::Stopped);
            }
            let said = self.reference_of(&batch.rows, device);
            let count = batch.count();
            for at in 0..count {
                let of_row = said.iter().skip(at).step_by(count);
                found.push(of_row.copied().collect());
            }
            progress(done + 1, total);
        }
        data.keep_reference(found);
        Ok(())
    }

    /// How far the model is from the reference on answers to other prompts.
    fn distance(&self, batch: &PreferenceBatch, device: &Device) -> f64 {
        let Some(rows) = &batch.mismatched else {
            return 0.0;
        };
        let pass = self.pass(rows, device);
        let losses = self.model.valid().losses(pass.tokens, pass.targets, 1.0);
        let own = said(&losses).log_probabilities;
        let reference = self.reference_of(rows, device);
        let differences = own.iter().zip(&reference).map(|(a, b)| a - b);
        differences.sum::<f64>() / own.len().max(1) as f64
    }

    /// What the loss of a batch needs beside what the model says.
    fn beside(&self, batch: &PreferenceBatch, device: &Device) -> (Vec<f64>, f64) {
        let reference = match &batch.reference {
            _ if !self.settings.config.stage.has_reference() => Vec::new(),
            Some(known) => known.clone(),
            None => self.reference_of(&batch.rows, device),
        };
        (reference, self.distance(batch, device))
    }

    /// The loss of a batch from what the model says.
    fn outcome(
        &self,
        losses: &Losses,
        lengths: &[f64],
        batch: &PreferenceBatch,
        (reference, distance): &(Vec<f64>, f64),
    ) -> Outcome {
        let evidence = Evidence {
            model: &said(losses),
            reference,
            lengths,
            desirable: &batch.desirable,
            distance: *distance,
        };
        outcome(&self.settings.config, &evidence)
    }

    /// Computes what training minimizes by `compute`, which gets the rows of a batch and what becomes of
    /// their losses.
    fn trained<L>(
        &self,
        batch: &PreferenceBatch,
        denominator: f64,
        device: &Device,
        compute: impl FnOnce(TrainingBatch<Tokens>, &dyn Fn(Losses) -> Tensor<1>) -> L,
    ) -> BatchLoss<L> {
        let beside = self.beside(batch, device);
        let pass = self.pass(&batch.rows, device);
        let metrics = RefCell::<Metrics>::default();
        // Means over the batch count by its size.
        let share = batch.count() as f64 / denominator;
        let objective = |losses: Losses| {
            let found = self.outcome(&losses, &pass.lengths, batch, &beside);
            *metrics.borrow_mut() = found.metrics;
            // The sums are those of losses, which are the log-probabilities below 0.
            let slopes = found.slopes.iter().map(|slope| (-slope * share) as f32);
            let slopes: Vec<f32> = slopes.collect();
            let slopes = Tensor::<1>::from_data(slopes.as_slice(), &losses.sums.device());
            let sum = (losses.sums * slopes).sum();
            // A number that is 0 and has these slopes.
            sum.clone() - sum.detach() + found.loss * share
        };
        let rows = TrainingBatch::new(pass.tokens, pass.targets, &batch.rows.lengths);
        let loss = compute(rows, &objective);
        BatchLoss::new(loss, metrics.take())
    }
}

/// What a model says, from the sums of its losses.
fn said(losses: &Losses) -> Said {
    let values = |tensor: &Tensor<1>| -> Vec<f64> { tensor.to_data().iter::<f64>().collect() };
    Said {
        log_probabilities: values(&losses.sums).into_iter().map(|sum| -sum).collect(),
        right: values(&losses.right),
    }
}

impl TrainModel for PreferenceModel {
    type Data = PreferenceData;

    fn check(&self, data: &PreferenceData) -> Result<(), TrainError> {
        check_lengths(&data.rows, self.model.config().longest_sequence)
    }

    fn regularize(&mut self, wanted: Regularization) -> Result<(), TrainError> {
        if wanted.label_smoothing != 0.0 {
            return Err(TrainError::Config {
                key: "label_smoothing_factor",
                reason: "it is for examples; of preferences label_smoothing smooths the labels"
                    .into(),
            });
        }
        self.model.regularize(wanted)
    }

    fn loss(&self, batch: &PreferenceBatch, denominator: f64, device: &Device) -> BatchLoss {
        let beside = self.beside(batch, device);
        let pass = self.pass(&batch.rows, device);
        let losses = self.model.losses(pass.tokens, pass.targets, 1.0);
        let found = self.outcome(&losses, &pass.lengths, batch, &beside);
        let loss = found.loss * batch.count() as f64 / denominator;
        let loss = Tensor::<1>::from_data([loss as f32], device);
        BatchLoss::new(loss, found.metrics)
    }

    fn training_loss(
        &self,
        batch: &PreferenceBatch,
        denominator: f64,
        device: &Device,
    ) -> BatchLoss {
        self.trained(batch, denominator, device, |rows, objective| {
            self.model.training_loss(rows, objective)
        })
    }

    fn blocks(&self) -> Option<&dyn TrainBlocks<PreferenceBatch>> {
        Some(self)
    }

    fn facts(&self) -> ModelFacts<'_> {
        model_facts(self.model.spec())
    }
}

impl TrainBlocks<PreferenceBatch> for PreferenceModel {
    fn backward_by_block(
        &self,
        batch: &PreferenceBatch,
        denominator: f64,
        device: &Device,
        sink: &mut dyn FnMut(Gradients),
    ) -> BatchLoss<f32> {
        self.trained(batch, denominator, device, |rows, objective| {
            self.model.training_backward_by_block(rows, objective, sink)
        })
    }
}
