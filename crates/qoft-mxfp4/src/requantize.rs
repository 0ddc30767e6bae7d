//! Quantizing a changed weight of a layer. Groups that have not changed keep their scales.

use qoft_scheme::kernels::{Matrix, equal_blocks};
use qoft_scheme::{NewTensor, Requantize, Result};

use crate::layout::{BLOCKS, GROUP, Packed, SCALES};
use crate::quantize::{exponents, grid, pairs};

/// The layer again.
///
/// # Errors
/// If a tensor is missing.
pub fn requantize(packed: &Packed, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let before = Matrix::decode(&packed.matrix()?);
    let kept = equal_blocks(weight, &before, [1, GROUP]);
    drop(before);
    let mut scales = exponents(weight);
    let stored = packed.scales.bytes().iter();
    for ((scale, &stored), _) in scales
        .iter_mut()
        .zip(stored)
        .zip(kept)
        .filter(|(_, kept)| *kept)
    {
        *scale = stored;
    }
    let codes = how.search.codes(weight, &grid(&scales, weight.shape[1]));
    let layer = &how.current;
    layer.with_rest(vec![
        layer.rewritten(BLOCKS, pairs(&codes))?,
        layer.rewritten(SCALES, scales)?,
    ])
}
