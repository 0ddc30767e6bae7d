//! Parts of tensors.

use std::ops::Range;

use safetensors::Dtype;

/// A part of a tensor of `[count, shares · rows, ..]`: `[rows, ..]`, which lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TensorPart {
    /// In the first dimension.
    pub index: usize,
    /// Which of the equal parts of the second dimension.
    pub share: usize,
    /// How many of these there are.
    pub shares: usize,
}

/// How many tensors there are in the first dimension, if the second one can be divided.
pub(super) fn count(dtype: Dtype, shape: &[usize], shares: usize) -> Option<usize> {
    let (&count, &rows) = (shape.first()?, shape.get(1)?);
    let elements: usize = shape[1..].iter().product();
    let bits = elements.checked_mul(dtype.bitsize())?;
    let whole = rows.is_multiple_of(shares) && bits.is_multiple_of(8 * shares);
    whole.then_some(count)
}

impl TensorPart {
    /// Its shape, and where its bytes are among `bytes`.
    pub(super) fn within(self, shape: &[usize], bytes: usize) -> (Vec<usize>, Range<usize>) {
        let mut own = shape[1..].to_vec();
        own[0] /= self.shares;
        let length = bytes / shape[0] / self.shares;
        let start = (self.index * self.shares + self.share) * length;
        (own, start..start + length)
    }
}
