//! Where tokens are in their sequences.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor};

/// The positions of tokens that pass through a model at once, in every row of a batch: those of a
/// part of one sequence, or of several whole sequences that stand one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions(Arc<[Range<usize>]>);

impl Positions {
    /// A part of one sequence.
    #[must_use]
    pub fn new(range: Range<usize>) -> Self {
        Self(Arc::new([range]))
    }

    /// Whole sequences with these lengths, one after another. Each begins at position 0.
    #[must_use]
    pub fn packed(lengths: &[usize]) -> Self {
        Self(lengths.iter().map(|&length| 0..length).collect())
    }

    /// The positions of each sequence; the last one ends it.
    #[must_use]
    pub fn sequences(&self) -> &[Range<usize>] {
        &self.0
    }

    /// The positions of all tokens.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().flat_map(Range::clone)
    }

    /// The lengths of the sequences, if there are several.
    #[must_use]
    pub fn lengths(&self) -> Option<Arc<[usize]>> {
        let several = self.0.len() > 1;
        several.then(|| self.0.iter().map(Range::len).collect())
    }
}

/// Token ids with what stands in each of their rows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tokens {
    /// The ids, `[batch, time]`.
    pub ids: Tensor<2, Int>,
    /// The lengths of the sequences that stand one after another in every row; `None` where a row
    /// is one sequence.
    pub lengths: Option<Vec<usize>>,
}

impl Tokens {
    /// Rows in which several whole sequences stand one after another.
    ///
    /// # Panics
    /// If the `lengths` do not add up to that of a row.
    #[must_use]
    pub fn packed(ids: Tensor<2, Int>, lengths: &[usize]) -> Self {
        let total: usize = lengths.iter().sum();
        assert_eq!(total, ids.dims()[1], "the lengths of packed sequences");
        Self {
            ids,
            lengths: Some(lengths.to_vec()),
        }
    }

    /// Where they are, behind `before` tokens of a sequence.
    pub(crate) fn positions(&self, before: usize) -> Positions {
        match &self.lengths {
            Some(lengths) => Positions::packed(lengths),
            None => Positions::new(before..before + self.ids.dims()[1]),
        }
    }
}

impl From<Tensor<2, Int>> for Tokens {
    /// Rows of one sequence each.
    fn from(ids: Tensor<2, Int>) -> Self {
        Self { ids, lengths: None }
    }
}
