//! What a run is made from, and what comes out of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qoft_peft::AdapterConfig;

use super::below::Below;
use super::config::TrainConfig;
use super::digest::Digest;
use super::folder::RunFolder;
use super::plan::Plan;
use crate::data::Dataset;
use crate::group::{Alone, Group};
use crate::model::TrainData;

/// A training run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Trainer<'a, D = Dataset> {
    /// The settings.
    pub config: &'a TrainConfig,
    /// The configuration of the attached adapter, saved with it.
    pub adapter_config: &'a dyn AdapterConfig,
    /// Of the model's checkpoint, if it has one: a run that goes on must have the same.
    pub base: Option<&'a Digest>,
    /// The other adapters of the model, which stay as they are.
    pub below: &'a [Below],
    /// The training data.
    pub dataset: &'a D,
    /// The evaluation data.
    pub eval_dataset: Option<&'a D>,
    /// Where everything is written.
    pub folder: &'a RunFolder,
    /// Where the run begins.
    pub start: Start<'a>,
    /// The learning rates of its first steps; those of the settings where it is shorter.
    pub rates: &'a [f64],
    /// The processes that train together. The batches of a step are dealt out to them, and rank 0 writes;
    /// all of them come to the same parameters, which are those of a single process.
    pub group: &'a dyn Group,
}

/// Where a run begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start<'a> {
    /// At the first step, with the adapter as it is.
    #[default]
    New,
    /// At the first step, with the weights of this adapter or checkpoint.
    Weights(&'a Path),
    /// After the steps of this checkpoint, with its weights and its optimizer. If its run is at its
    /// end, and this one has other data, it is [`Start::Weights`].
    Checkpoint(&'a Path),
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Steps that were done before.
    pub start: usize,
    /// Steps that are done, those before among them.
    pub steps: usize,
    /// Loss of the run's first step.
    pub first_loss: Option<f64>,
    /// Loss of its last step.
    pub final_loss: Option<f64>,
    /// What was measured beside that, by name.
    pub final_metrics: BTreeMap<String, f64>,
    /// Loss of the adapter on the evaluation data.
    pub eval_loss: Option<f64>,
    /// What was measured beside that, by name.
    pub eval_metrics: BTreeMap<String, f64>,
    /// How long it took.
    pub seconds: f64,
    /// Tokens without padding that it went through.
    pub tokens: usize,
    /// Whether it was stopped before everything was done.
    pub interrupted: bool,
    /// Whether it ended before its last step, since evaluations were no longer better.
    pub stopped_early: bool,
    /// The step of which the adapter is, if it is an earlier one with a lower evaluation loss.
    pub best: Option<usize>,
    /// The last checkpoint that it wrote.
    pub checkpoint: Option<PathBuf>,
    /// Where the trained adapter is; nowhere if the run was stopped before its last step.
    pub adapter: Option<PathBuf>,
}

impl<'a, D> Trainer<'a, D> {
    /// A new run, of a model without a checkpoint and without other adapters, and without
    /// evaluation. The other fields are set afterwards.
    #[must_use]
    pub fn new(
        config: &'a TrainConfig,
        adapter_config: &'a dyn AdapterConfig,
        dataset: &'a D,
        folder: &'a RunFolder,
    ) -> Self {
        Self {
            config,
            adapter_config,
            base: None,
            below: &[],
            dataset,
            eval_dataset: None,
            folder,
            start: Start::New,
            rates: &[],
            group: &Alone,
        }
    }

    /// Whether this process writes what the run writes.
    pub(super) fn writes(&self) -> bool {
        self.group.rank() == 0
    }
}

impl<D: TrainData> Trainer<'_, D> {
    /// Whether the run evaluates.
    pub(super) fn evaluates(&self) -> bool {
        self.eval_dataset.is_some() && self.config.evaluates()
    }

    /// The number of steps of the whole run.
    #[must_use]
    pub fn total_steps(&self) -> usize {
        Plan::new(self.config, self.dataset.rows()).total
    }
}
