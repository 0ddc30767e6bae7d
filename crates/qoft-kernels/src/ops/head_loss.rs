//! The loss of an output head, as it is asked for.

use std::sync::Arc;

use super::soft_cap::SoftCap;

/// The loss of a head with a weight `W` and a bias `B`: `Σ −log softmax(scale·(h·Wᵀ + bias))[label]`,
/// divided by `denominator`; the logits may be bounded. Rows of h whose label is `None` do not count.
///
/// Output: `[2 · groups]`. First the loss of each group of rows, then of how many rows of each the label
/// has the largest logit, which has no gradient.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CrossEntropy<W, B> {
    /// The head, `[vocab, in_features]`.
    pub weight: W,
    /// Added to the logits, `[vocab]`.
    pub bias: Option<B>,
    /// Multiplies the logits.
    pub scale: f32,
    /// Bounds the multiplied logits.
    pub soft_cap: Option<SoftCap>,
    /// The token to predict from each row; less than `vocab`.
    pub labels: Arc<Vec<Option<u32>>>,
    /// Which rows are summed up together.
    pub groups: Groups,
    /// How much of the probability that is asked for is spread over the whole vocabulary: as
    /// transformers' `LabelSmoother`, `(1 − ε) · loss + ε · mean over the vocabulary of −log softmax`.
    pub smoothing: f64,
    /// What the sums are divided by, usually the number of labels.
    pub denominator: f64,
}

impl<W, B> CrossEntropy<W, B> {
    /// The loss of these labels, one for each row of the input. The logits have no bias and are
    /// not scaled, and the sum is not divided.
    pub fn new(weight: W, labels: Arc<Vec<Option<u32>>>) -> Self {
        Self {
            weight,
            bias: None,
            scale: 1.0,
            soft_cap: None,
            labels,
            groups: Groups::One,
            smoothing: 0.0,
            denominator: 1.0,
        }
    }

    /// The same with a sum for each of several groups of rows.
    #[must_use]
    pub fn with_groups(self, groups: Groups) -> Self {
        Self { groups, ..self }
    }

    /// The same with smoothed labels.
    #[must_use]
    pub fn with_smoothing(self, smoothing: f64) -> Self {
        Self { smoothing, ..self }
    }

    /// The loss of a row from the logarithm of the sum of its powers, the logit of its label and the mean
    /// of its logits.
    pub(super) fn loss(&self, log_sum: f64, target: f64, mean: f64) -> f64 {
        match self.smoothing {
            0.0 => log_sum - target,
            e => log_sum - (1.0 - e) * target - e * mean,
        }
    }

    /// The output, from the losses of rows and whether their labels have the largest logits.
    pub(super) fn output(&self, rows: impl Iterator<Item = (usize, f64, bool)>) -> Vec<f32> {
        let count = self.groups.count();
        let (mut losses, mut right) = (vec![0.0; count], vec![0.0; count]);
        for (row, loss, is_right) in rows {
            let group = self.groups.of(row);
            losses[group] += loss;
            right[group] += if is_right { 1.0 } else { 0.0 };
        }
        let losses = losses.into_iter().map(|loss: f64| loss / self.denominator);
        losses.chain(right).map(|value| value as f32).collect()
    }

    /// The same with a bias of `[vocab]`, or without.
    #[must_use]
    pub fn with_bias(self, bias: Option<B>) -> Self {
        Self { bias, ..self }
    }

    /// The same with logits that are multiplied.
    #[must_use]
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// The same with bounded logits, or without.
    #[must_use]
    pub fn with_soft_cap(self, soft_cap: Option<SoftCap>) -> Self {
        Self { soft_cap, ..self }
    }

    /// Turns products of a row with the head into its logits.
    #[inline(always)]
    pub(super) fn finish_logits(&self, products: &mut [f32], bias: Option<&[f32]>) {
        if let Some(bias) = bias {
            products.iter_mut().zip(bias).for_each(|(l, b)| *l += b);
        }
        products.iter_mut().for_each(|l| *l *= self.scale);
        if let Some(cap) = self.soft_cap {
            products.iter_mut().for_each(|l| *l = cap.value(*l));
        }
    }

    /// The same with a sum that is divided, usually by the number of labels.
    #[must_use]
    pub fn with_denominator(self, denominator: f64) -> Self {
        Self {
            denominator,
            ..self
        }
    }
}

/// Which rows are summed up together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Groups {
    /// All of them.
    #[default]
    One,
    /// Those of the same number, for the number of each row; the largest number and 1 is `count`.
    Several {
        /// The number of each row's group.
        of_rows: Arc<Vec<u32>>,
        /// How many groups there are.
        count: usize,
    },
}

impl Groups {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::One => 1,
            Self::Several { count, .. } => *count,
        }
    }

    /// The group of a row.
    #[must_use]
    pub fn of(&self, row: usize) -> usize {
        match self {
            Self::One => 0,
            Self::Several { of_rows, .. } => of_rows[row] as usize,
        }
    }
}
