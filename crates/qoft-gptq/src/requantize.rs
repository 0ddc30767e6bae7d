//! Rounding a changed weight to a layer's bits, groups and zero points.
//!
//! The library's own algorithm needs calibration data. Without it, [`IntegerGrid::fit`] chooses the
//! scales; its plain range, as in the library's quantizer, is one of those tried.

use qoft_scheme::kernels::{Matrix, transpose};
use qoft_scheme::{IntegerGrid, NewTensor, Requantize, Result};

use crate::config::ZeroPoints;
use crate::layout::GptqLayer;
use crate::words::pack;
use crate::zeros;

/// The layer again, with its width, groups, scale dtype and version of the zero points. Layers
/// whose zero points are all in the middle keep them.
///
/// # Errors
/// If a scale is not finite, or a tensor is missing.
pub fn requantize(parsed: &GptqLayer, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let zeros = parsed.zeros();
    let symmetric = zeros.iter().all(|&zero| zero == 1 << (parsed.bits - 1));
    let stored = parsed.scales.floats()?;
    let mut scales = vec![0.0; stored.len()];
    stored
        .transposed(parsed.groups, parsed.shape[0])
        .read(0, &mut scales);
    let mut grid = IntegerGrid::new(
        parsed.shape[0],
        parsed.group_of_each(),
        parsed.groups,
        parsed.bits,
        stored.format(),
    )
    .starting_from(scales, zeros);
    let codes = grid.requantize(weight, symmetric, how.search);
    let [qweight, qzeros, scales] = tensor_bytes(&codes, &grid, parsed.bits, parsed.zero_points);
    let layer = &how.current;
    layer.with_rest(vec![
        layer.rewritten("qweight", qweight)?,
        layer.rewritten("qzeros", qzeros)?,
        layer.rewritten("scales", scales)?,
    ])
}

/// The bytes of `qweight`, `qzeros` and `scales`.
pub fn tensor_bytes(
    codes: &[u8],
    grid: &IntegerGrid,
    bits: usize,
    version: ZeroPoints,
) -> [Vec<u8>; 3] {
    let (k, groups) = (grid.index.len(), grid.count);
    let n = codes.len() / k;
    // A fit takes finite scales only.
    let scales = grid.format.to_bytes(&grid.scales);
    [
        pack(codes, bits, [n, k]),
        zeros::write(version, &grid.zeros, bits, [groups, n]),
        transpose(&scales, grid.format.size(), [n, groups]),
    ]
}
