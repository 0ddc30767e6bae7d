//! The loss of a model on a data file.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;

use crate::data::Order;
use crate::error::TrainError;
use crate::group::{Alone, Group, GroupError, Reader, Words, dealt};
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
    evaluate_among(&Alone, model, dataset, batch_size, device, stop, progress)
}

/// As [`evaluate`], with the batches dealt out to the processes of a group, all of which call it and get the
/// same: the one that a single process gets. It ends where `stop` is true on any of them.
///
/// # Errors
/// Those of [`evaluate`], and [`TrainError::Group`].
pub fn evaluate_among<M: TrainModel>(
    group: &dyn Group,
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
    let stopping = || stop.load(Ordering::Relaxed);
    let work = |batch: <M::Data as TrainData>::Batch| {
        let (predicted, mut words) = (batch.predicted(), Words::default());
        words.number(predicted as u64);
        if predicted > 0 {
            let found = model.loss(&batch, predicted as f64, device);
            words.float(f64::from(found.loss.into_scalar::<f32>()));
            found.metrics.write(&mut words);
        }
        Ok::<_, TrainError>(words.into_bytes())
    };
    let found = dealt(group, batches, &stopping, progress, work)?.ok_or(TrainError::Stopped)?;
    let (mut sum, mut tokens, mut metrics) = (0.0, 0, Metrics::default());
    for (index, bytes) in found.iter().enumerate() {
        let read = BatchResult::read(bytes);
        let rank = index % group.size();
        let batch =
            read.ok_or_else(|| GroupError::unreadable(rank, bytes, "the loss of a batch"))?;
        if batch.predicted > 0 {
            metrics.merge(&batch.metrics);
            sum += batch.loss * batch.predicted as f64;
            tokens += batch.predicted;
        }
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

/// What a batch came to.
struct BatchResult {
    predicted: usize,
    /// Of each of them.
    loss: f64,
    metrics: Metrics,
}

impl BatchResult {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let predicted = usize::try_from(reader.number()?).ok()?;
        let (mut loss, mut metrics) = (0.0, Metrics::default());
        if predicted > 0 {
            loss = reader.float()?;
            metrics = Metrics::read(&mut reader)?;
        }
        reader.is_at_end().then_some(Self {
            predicted,
            loss,
            metrics,
        })
    }
}
