//! What training, evaluation, calibration and generation need of a model.
//!
//! [`CausalLm`] is all of it, whatever its architecture. A model of one's own, made of
//! [`qoft_core`]'s layers, implements [`TrainModel`] for a [`Dataset`] of tokens or for data of its
//! own, and [`GenerateModel`] if it writes text.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use burn::module::Module;
use burn::tensor::{Device, Gradients, Int, Tensor};
use qoft_core::Walk;
use qoft_models::{Cache, CausalLm, Continuation, Losses, ModelSpec, TrainingBatch};
use qoft_peft::ModelFacts;

use crate::data::{Batch, Dataset, Order, Rows};
use crate::error::TrainError;
use crate::inputs::{check_lengths, input_ids, targets, tokens};
use crate::metrics::{BatchLoss, Metrics};
use crate::regularization::Regularization;

/// Data that a model learns from.
pub trait TrainData {
    /// Rows that are computed at once.
    type Batch: TrainBatch;

    /// The number of rows.
    fn rows(&self) -> usize;

    /// What there is to predict in all rows.
    fn predicted(&self) -> usize;

    /// Hands on bytes that are others where the data is another: a run goes on with the same only.
    fn content(&self, take: &mut dyn FnMut(&[u8]));

    /// What an error names as the rows of each batch of one epoch, counted from 0.
    fn batch_rows(&self, order: Order, batch_size: NonZeroUsize) -> Vec<Vec<usize>> {
        let indices = order.indices(self.rows());
        let batches = indices.chunks(batch_size.get());
        batches.map(<[usize]>::to_vec).collect()
    }

    /// What an error calls the rows of [`Self::batch_rows`]: where they are, or their numbers.
    fn row_names(&self, rows: &[usize]) -> Vec<String> {
        rows.iter().map(|row| format!("row {}", row + 1)).collect()
    }

    /// The batches of one epoch; the last one holds what is left and may be smaller.
    fn batches(
        &self,
        order: Order,
        batch_size: NonZeroUsize,
    ) -> Box<dyn ExactSizeIterator<Item = Self::Batch> + '_>;
}

/// What is computed at once.
pub trait TrainBatch {
    /// What there is to predict: the losses of so many predictions are averaged. It can be 0.
    fn predicted(&self) -> usize;

    /// Units of input without padding, of which reports count how many are computed in a second.
    fn tokens(&self) -> usize;
}

/// A model with adapters that train.
pub trait TrainModel: Module + Walk {
    /// What it learns from.
    type Data: TrainData;

    /// Fails if it cannot compute the data.
    ///
    /// # Errors
    /// [`TrainError`].
    fn check(&self, data: &Self::Data) -> Result<(), TrainError> {
        let _ = data;
        Ok(())
    }

    /// The sum of the losses of all predictions, divided by `denominator`: a scalar. Inputs belong
    /// on `device`.
    fn loss(
        &self,
        batch: &<Self::Data as TrainData>::Batch,
        denominator: f64,
        device: &Device,
    ) -> BatchLoss;

    /// What training minimizes: [`Self::loss`], perhaps with terms beside it that are none of predictions.
    fn training_loss(
        &self,
        batch: &<Self::Data as TrainData>::Batch,
        denominator: f64,
        device: &Device,
    ) -> BatchLoss {
        self.loss(batch, denominator, device)
    }

    /// Computes a batch for the sake of what layers see: at least as far as those at the module paths
    /// `wanted`. What stands here computes all of it.
    fn forward_to(
        &self,
        batch: &<Self::Data as TrainData>::Batch,
        wanted: &BTreeSet<&str>,
        device: &Device,
    ) {
        let _ = wanted;
        drop(self.loss(batch, 1.0, device));
    }

    /// Takes what training does against learning by heart.
    ///
    /// # Errors
    /// [`TrainError::Config`] for what it cannot do; what stands here can do nothing of it.
    fn regularize(&mut self, wanted: Regularization) -> Result<(), TrainError> {
        wanted.refuse()
    }

    /// The model as one that can be computed block by block, if it can.
    fn blocks(&self) -> Option<&dyn TrainBlocks<<Self::Data as TrainData>::Batch>> {
        None
    }

    /// What PEFT's rules have to know of it beside its layers.
    fn facts(&self) -> ModelFacts<'_> {
        ModelFacts::default()
    }
}

/// A model whose blocks can be computed once more in the backward, see
/// [`TrainConfig::gradient_checkpointing`](crate::train::TrainConfig::gradient_checkpointing).
pub trait TrainBlocks<B> {
    /// The value of [`TrainModel::training_loss`]; `sink` gets its gradients, those of one part of the model
    /// after another.
    fn backward_by_block(
        &self,
        batch: &B,
        denominator: f64,
        device: &Device,
        sink: &mut dyn FnMut(Gradients),
    ) -> BatchLoss<f32>;
}

/// A model of tokens.
pub trait TokenModel {
    /// The number of token ids that it knows.
    fn vocab_size(&self) -> usize;

    /// The longest sequence that it can compute at all; `None` where there is no limit.
    fn longest_sequence(&self) -> Option<usize> {
        None
    }
}

/// A model that says which token comes next.
pub trait GenerateModel: TokenModel + Module {
    /// What it keeps of the tokens so far.
    type Cache;

    /// A cache of no tokens.
    fn new_cache(&self) -> Self::Cache;

    /// The longest text that it is meant for, in tokens.
    fn context_length(&self) -> usize;

    /// Logits `[batch, vocab]` of the token after `input_ids` of `[batch, time]`. With a cache, these
    /// follow the tokens that it has seen.
    fn next_logits(&self, input_ids: Tensor<2, Int>, cache: Option<&mut Self::Cache>) -> Tensor<2>;

    /// Logits `[sequences, vocab]` of the tokens after these, each computed with its adapters. What stands here
    /// computes one sequence after another.
    fn continued_logits(
        &self,
        sequences: Vec<Continuation<Self::Cache>>,
        device: &Device,
    ) -> Tensor<2> {
        let logits = sequences.into_iter().map(|mut sequence| {
            let ids = sequence.row(device);
            sequence.with_adapters(|sequence| self.next_logits(ids, Some(sequence.cache)))
        });
        Tensor::cat(logits.collect(), 0)
    }
}

impl TrainData for Dataset {
    type Batch = Batch;

    fn rows(&self) -> usize {
        Dataset::rows(self)
    }

    fn batch_rows(&self, order: Order, batch_size: NonZeroUsize) -> Vec<Vec<usize>> {
        self.batch_examples(order, batch_size)
    }

    fn row_names(&self, rows: &[usize]) -> Vec<String> {
        Rows::row_names(self, rows)
    }

    fn predicted(&self) -> usize {
        self.report.predicted
    }

    fn content(&self, take: &mut dyn FnMut(&[u8])) {
        for example in &self.examples {
            example.content(take);
        }
        take(self.arrangement_content().as_bytes());
    }

    fn batches(
        &self,
        order: Order,
        batch_size: NonZeroUsize,
    ) -> Box<dyn ExactSizeIterator<Item = Batch> + '_> {
        Box::new(Dataset::batches(self, order, batch_size))
    }
}

impl TrainBatch for Batch {
    fn predicted(&self) -> usize {
        self.predicted
    }

    fn tokens(&self) -> usize {
        self.tokens
    }
}

/// What PEFT's rules have to know of a model beside its layers.
pub fn model_facts(spec: &ModelSpec) -> ModelFacts<'_> {
    let names = spec.names();
    ModelFacts::of_type(&spec.config().model_type)
        .with_head(names.head)
        .with_default_targets(names.targets)
        .with_other_parts(names.other_parts)
        .with_older_paths(names.older_paths)
        .with_alone(names.base_alone.map(|alone| (names.base, alone)))
}

impl TrainModel for CausalLm {
    type Data = Dataset;

    fn check(&self, data: &Dataset) -> Result<(), TrainError> {
        if data.is_packed() && !self.packs() {
            return Err(TrainError::Config {
                key: "packing",
                reason: format!(
                    "models of type `{}` cannot keep the sequences of a row apart",
                    self.config().model_type
                ),
            });
        }
        check_lengths(data, self.config().longest_sequence)
    }

    fn regularize(&mut self, wanted: Regularization) -> Result<(), TrainError> {
        self.set_label_smoothing(wanted.label_smoothing);
        self.set_embedding_noise(wanted.embedding_noise);
        Ok(())
    }

    fn loss(&self, batch: &Batch, denominator: f64, device: &Device) -> BatchLoss {
        let losses = self.losses(tokens(batch, device), targets(batch), denominator);
        let metrics = accuracy(batch, &losses);
        BatchLoss::new(losses.sums, metrics)
    }

    fn training_loss(&self, batch: &Batch, denominator: f64, device: &Device) -> BatchLoss {
        let metrics = RefCell::default();
        let objective = |losses: Losses| {
            *metrics.borrow_mut() = accuracy(batch, &losses);
            losses.sums
        };
        let loss = CausalLm::training_loss(self, pass(batch, denominator, device), &objective);
        BatchLoss::new(loss, metrics.take())
    }

    fn forward_to(&self, batch: &Batch, wanted: &BTreeSet<&str>, device: &Device) {
        if wanted.contains(CausalLm::head(self)) {
            drop(TrainModel::loss(self, batch, 1.0, device));
        } else {
            drop(self.hidden(input_ids(batch, device), None));
        }
    }

    fn blocks(&self) -> Option<&dyn TrainBlocks<Batch>> {
        Some(self)
    }

    fn facts(&self) -> ModelFacts<'_> {
        model_facts(self.spec())
    }
}

impl TrainBlocks<Batch> for CausalLm {
    fn backward_by_block(
        &self,
        batch: &Batch,
        denominator: f64,
        device: &Device,
        sink: &mut dyn FnMut(Gradients),
    ) -> BatchLoss<f32> {
        let metrics = RefCell::default();
        let objective = |losses: Losses| {
            *metrics.borrow_mut() = accuracy(batch, &losses);
            losses.sums
        };
        let pass = pass(batch, denominator, device);
        let loss = self.training_backward_by_block(pass, &objective, sink);
        BatchLoss::new(loss, metrics.take())
    }
}

/// A batch as the model takes it.
fn pass<'a>(
    batch: &'a Batch,
    denominator: f64,
    device: &Device,
) -> TrainingBatch<'a, qoft_models::Tokens> {
    let pass = TrainingBatch::new(tokens(batch, device), targets(batch), &batch.lengths);
    pass.divided_by(denominator)
}

/// How many tokens of a batch are the likeliest ones.
fn accuracy(batch: &Batch, losses: &Losses) -> Metrics {
    let mut metrics = Metrics::default();
    let right = losses.right.to_data();
    let right = right.iter::<f64>().sum::<f64>();
    metrics.add(Metrics::TOKEN_ACCURACY, right / batch.predicted as f64);
    metrics
}

impl TokenModel for CausalLm {
    fn vocab_size(&self) -> usize {
        self.config().vocab_size
    }

    fn longest_sequence(&self) -> Option<usize> {
        self.config().longest_sequence
    }
}

impl GenerateModel for CausalLm {
    type Cache = Cache;

    fn new_cache(&self) -> Cache {
        CausalLm::new_cache(self)
    }

    fn context_length(&self) -> usize {
        self.config().max_position_embeddings
    }

    fn next_logits(&self, input_ids: Tensor<2, Int>, cache: Option<&mut Cache>) -> Tensor<2> {
        self.last_logits(input_ids, cache)
    }

    fn continued_logits(&self, sequences: Vec<Continuation>, device: &Device) -> Tensor<2> {
        self.continued(sequences, device)
    }
}
