//! What a model is to predict, and what its losses come to.

use std::sync::Arc;

use burn::tensor::Tensor;
use qoft_core::kernels::ops::Groups;

/// What is to be predicted at each of the `batch · time` positions.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Targets {
    /// The token that follows each position; `None` where it does not count.
    pub labels: Arc<Vec<Option<u32>>>,
    /// Which positions are summed up together.
    pub groups: Groups,
    /// How much of the probability that is asked for is spread over the whole vocabulary.
    pub smoothing: f64,
}

impl Targets {
    /// All of one sum.
    #[must_use]
    pub fn new(labels: Vec<Option<u32>>) -> Self {
        Self {
            labels: Arc::new(labels),
            groups: Groups::One,
            smoothing: 0.0,
        }
    }

    /// The same with several sums: `of_positions` has the number of each position's, which is below `count`.
    #[must_use]
    pub fn in_groups(self, of_positions: Vec<u32>, count: usize) -> Self {
        let of_rows = Arc::new(of_positions);
        Self {
            groups: Groups::Several { of_rows, count },
            ..self
        }
    }

    /// The same with smoothed labels.
    #[must_use]
    pub fn smoothed(self, smoothing: f64) -> Self {
        Self { smoothing, ..self }
    }
}

impl From<Vec<Option<u32>>> for Targets {
    fn from(labels: Vec<Option<u32>>) -> Self {
        Self::new(labels)
    }
}

/// What the predictions of a batch come to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Losses {
    /// The cross-entropies of each group, summed up and divided: `[groups]`.
    pub sums: Tensor<1>,
    /// Of how many positions of each group the target is the likeliest token, without a gradient:
    /// `[groups]`.
    pub right: Tensor<1>,
}

impl Losses {
    /// Parts of `[2 · groups]`.
    pub(crate) fn new(output: Tensor<1>) -> Self {
        let groups = output.dims()[0] / 2;
        Self {
            sums: output.clone().narrow(0, 0, groups),
            right: output.inner().narrow(0, groups, groups),
        }
    }
}

/// A batch of training.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TrainingBatch<'a, T> {
    /// The tokens: [`Tokens`](crate::Tokens), or what becomes such.
    pub tokens: T,
    /// What they predict.
    pub targets: Targets,
    /// What the sums of the losses are divided by.
    pub denominator: f64,
    /// The lengths of the rows without padding.
    pub lengths: &'a [usize],
}

impl<'a, T> TrainingBatch<'a, T> {
    /// A batch whose rows have these `lengths` without padding. The sums are not divided.
    pub fn new(tokens: T, targets: impl Into<Targets>, lengths: &'a [usize]) -> Self {
        Self {
            tokens,
            targets: targets.into(),
            denominator: 1.0,
            lengths,
        }
    }

    /// The same with sums that are divided.
    #[must_use]
    pub fn divided_by(self, denominator: f64) -> Self {
        Self {
            denominator,
            ..self
        }
    }
}
