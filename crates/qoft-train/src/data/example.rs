//! Rows ready for training.

use bytemuck::cast_slice;

use super::numbers::Numbers;

/// The label of a position at which nothing is learned.
pub const IGNORED: i32 = -100;

/// A row ready for training: token ids and what to learn at each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Example {
    /// The token ids.
    pub input_ids: Numbers<u32>,
    /// As many labels: the id itself where it is learned, [`IGNORED`] elsewhere. A model predicts
    /// the label at one position from the ids before it.
    pub labels: Numbers<i32>,
}

impl Example {
    /// Token ids, and a label for each.
    ///
    /// # Panics
    /// If there are not as many labels as ids.
    #[must_use]
    pub fn new(input_ids: Vec<u32>, labels: Vec<i32>) -> Self {
        assert_eq!(input_ids.len(), labels.len(), "a label for each id");
        Self {
            input_ids: input_ids.into(),
            labels: labels.into(),
        }
    }

    /// Hands on bytes that are others where the example is another.
    pub(crate) fn content(&self, take: &mut dyn FnMut(&[u8])) {
        take(&(self.input_ids.len() as u64).to_le_bytes());
        take(cast_slice(&self.input_ids));
        take(cast_slice(&self.labels));
    }

    /// The number of tokens before the first that is learned.
    pub(crate) fn unlearned_start(&self) -> usize {
        unlearned_start(&self.labels)
    }

    /// The number of labels that a model is asked to predict: the first position has no ids
    /// before it and does not count.
    #[must_use]
    pub fn predicted(&self) -> usize {
        self.labels
            .iter()
            .skip(1)
            .filter(|&&label| label != IGNORED)
            .count()
    }
}

/// The number of labels before the first that is learned.
pub(super) fn unlearned_start(labels: &[i32]) -> usize {
    let labels = labels.iter();
    labels.take_while(|label| **label == IGNORED).count()
}
