//! Quantizing a changed weight of a layer. Groups that have not changed keep their scales.

use qoft_scheme::kernels::{Matrix, code_pairs};
use qoft_scheme::{KeptBlocks, NewTensor, Requantize, Result};

use crate::layout::{BLOCKS, GROUP, Packed, SCALES};
use crate::quantize::{exponents, grid};

/// The layer again.
///
/// # Errors
/// If a tensor is missing.
pub fn requantize(packed: &Packed, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let kept = KeptBlocks::new(weight, &packed.matrix()?, [1, GROUP]);
    let mut scales = exponents(weight);
    kept.restore(&mut scales, packed.scales.bytes());
    let codes = how.search.codes(weight, &grid(&scales, weight.shape[1]));
    let layer = &how.current;
    layer.with_rest(vec![
        layer.rewritten(BLOCKS, code_pairs(&codes))?,
        layer.rewritten(SCALES, scales)?,
    ])
}
