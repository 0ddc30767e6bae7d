//! Where tokens are in their sequences.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use qoft_core::lanes;

/// The positions of tokens that pass through a model at once, in every row of a batch: those of a
/// part of one sequence, or of several sequences that stand one after another. These are whole, or
/// parts of which each has a cache.
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

    /// Parts of several sequences, one after another: of each the tokens at these positions.
    #[must_use]
    pub fn several(parts: Vec<Range<usize>>) -> Self {
        Self(parts.into())
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

impl Positions {
    /// What `f` makes of each sequence by itself, one after another: of `inputs` of `[batch, time, width]`,
    /// one of a width of its own and the same tokens.
    pub(crate) fn each<const N: usize>(
        &self,
        inputs: [Tensor<3>; N],
        f: &dyn Fn([Tensor<3>; N]) -> Tensor<3>,
    ) -> Tensor<3> {
        halves(&self.0, inputs, f)
    }
}

impl Positions {
    /// What `f` makes of the part of each sequence and of what is kept of it, one after another: as
    /// [`Self::each`], where each has a cache.
    pub(crate) fn continued<C, const N: usize>(
        &self,
        inputs: [Tensor<3>; N],
        caches: &mut [&mut C],
        f: &dyn Fn([Tensor<3>; N], &mut C) -> Tensor<3>,
    ) -> Tensor<3> {
        if let [cache] = caches {
            return f(inputs, cache);
        }
        let mut end = 0;
        let parts = self.0.iter().zip(caches).map(|(range, cache)| {
            let start = end;
            end += range.len();
            let part = |x: &Tensor<3>| x.clone().narrow(1, start, range.len());
            lanes::at(start..end, || f(inputs.each_ref().map(part), cache))
        });
        Tensor::cat(parts.collect(), 1)
    }
}

/// By halves: the gradient of a part is as large as what it was taken from, so taking each part from the whole
/// would cost the square of their number.
fn halves<const N: usize>(
    sequences: &[Range<usize>],
    inputs: [Tensor<3>; N],
    f: &dyn Fn([Tensor<3>; N]) -> Tensor<3>,
) -> Tensor<3> {
    if sequences.len() < 2 {
        return f(inputs);
    }
    let (left, right) = sequences.split_at(sequences.len() / 2);
    let [first, second] = [left, right].map(|part| part.iter().map(Range::len).sum::<usize>());
    let part = |start, length| {
        inputs
            .each_ref()
            .map(|x| x.clone().narrow(1, start, length))
    };
    let [first, second] = [
        halves(left, part(0, first), f),
        halves(right, part(first, second), f),
    ];
    Tensor::cat(vec![first, second], 1)
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
