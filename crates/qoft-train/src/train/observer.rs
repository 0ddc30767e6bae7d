//! How a run tells what it does.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::eval::Evaluation;

/// What happened in a step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// The step, counted from 1.
    pub step: usize,
    /// Steps of the run.
    pub total: usize,
    /// Mean loss of the predicted tokens, before the update.
    pub loss: f64,
    /// The learning rate of the update.
    pub lr: f64,
    /// Norm of all gradients, before clipping.
    pub grad_norm: f64,
    /// How long the step took, its batches and the update among it.
    pub seconds: f64,
    /// Tokens without padding a second.
    pub tokens_per_second: f64,
    /// Time that the steps left will take.
    pub eta: Duration,
    /// Whether `logging_steps` asks for a message: each so many steps, and at both ends.
    pub log: bool,
    /// What was measured beside the loss, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// Follows a run. Each method does nothing unless it is written.
pub trait Observer {
    /// Everything is checked, and nothing is written yet. The run goes on after `done` steps of
    /// `total`.
    fn begins(&mut self, done: usize, total: usize) {
        let _ = (done, total);
    }

    /// A step is done.
    fn step(&mut self, report: &StepReport) {
        let _ = report;
    }

    /// `done` of `total` batches of an evaluation are done.
    fn evaluating(&mut self, done: usize, total: usize) {
        let _ = (done, total);
    }

    /// An evaluation after `step` steps is done.
    fn eval(&mut self, step: usize, evaluation: &Evaluation) {
        let _ = (step, evaluation);
    }

    /// Something that one should know, but that ends nothing.
    fn warning(&mut self, text: &str) {
        let _ = text;
    }

    /// A checkpoint or the trained adapter is in this folder.
    fn saved(&mut self, folder: &Path) {
        let _ = folder;
    }
}

/// Follows nothing.
impl Observer for () {}
