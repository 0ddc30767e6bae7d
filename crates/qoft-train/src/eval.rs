//! The loss of a model on a data file.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;

use crate::data::Order;
use crate::error::TrainError;
use crate::metrics::Metrics;
use crate::model::{TrainBatch, TrainData, TrainModel};

/// How well a model predicts data.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Mean cross entropy of all predicted tokens, in nats.
    pub loss: f64,
    /// `exp(loss)`, or the largest number if that is larger.
    pub perplexity: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
    /// What was measured beside the loss, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// Evaluates `model` on `dataset` with `batch_size` rows at a time.
///
/// `device` is that of the model's weights. `progress` is called after each batch with the numbers
/// of batches done and of all. Once `stop` is true, it ends.
///
/// # Errors
///
/// [`TrainError::NothingToPredict`] for data without labels, [`TrainError::Config`] for a `batch_size`
/// of 0, what the model says of data that it cannot compute,
/// [`TrainError::EvaluationNotFinite`] for a loss that is infinite or not a number, and
/// [`TrainError::Stopped`].
pub fn evaluate<M: TrainModel>(
    model: &M,
    dataset: &M::Data,
    batch_size: usize,
    device: &Device,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, TrainError> {
    let batch_size = NonZeroUsize::new(batch_size).ok_or(TrainError::Config {
        key: "batch_size",
        reason: "must be at least 1".into(),
    })?;
    model.check(dataset)?;
    let model = model.valid();
    let batches = dataset.batches(Order::File, batch_size);
    let total = batches.len();
    let (mut sum, mut tokens, mut metrics) = (0.0, 0, Metrics::default());
    for (index, batch) in batches.enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(TrainError::Stopped);
        }
        let predicted = batch.predicted();
        if predicted > 0 {
            let count = predicted as f64;
            let found = model.loss(&batch, count, device);
            metrics.merge(&found.metrics);
            sum += f64::from(found.loss.into_scalar::<f32>()) * count;
            tokens += predicted;
        }
        progress(index + 1, total);
    }
    if tokens == 0 {
        return Err(TrainError::NothingToPredict);
    }
    let loss = sum / tokens as f64;
    if !loss.is_finite() {
        return Err(TrainError::EvaluationNotFinite { step: None, loss });
    }
    Ok(Evaluation {
        loss,
        perplexity: loss.exp().min(f64::MAX),
        tokens,
        metrics: metrics.means(),
    })
}
