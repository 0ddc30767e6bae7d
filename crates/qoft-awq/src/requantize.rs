//! Rounding a changed weight to 4 bits, with a layer's groups and zero points.
//!
//! AWQ's own scales and ranges need calibration data. Without it, [`IntegerGrid::fit`] chooses
//! them. Unlike the library's, its ranges include 0: a zero point is no code otherwise, and weights
//! that all have one sign could not be reached.

use qoft_scheme::kernels::{Codes, Matrix, transpose};
use qoft_scheme::{IntegerGrid, NewTensor, Requantize, Result, groups_in_order};

use crate::config::AwqVersion;
use crate::layout::{AwqLayer, gemm_words};

/// Width of a code.
pub const BITS: usize = 4;
/// The zero point of all groups of symmetric layers.
const MIDDLE: u8 = 8;

/// The layer again, with its groups, scale dtype and arrangement. Layers whose zero points are
/// all in the middle keep them.
///
/// # Errors
/// If a scale is not finite, or a tensor is missing.
pub fn requantize(parsed: &AwqLayer, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let ([n, k], count) = (parsed.shape, parsed.groups());
    let (zeros, stored) = (parsed.zeros(), parsed.computed_scales()?);
    let mut scales = vec![0.0; n * count];
    stored.read(0, &mut scales);
    let symmetric = zeros.iter().all(|&zero| zero == MIDDLE);
    let mut grid = IntegerGrid::new(
        n,
        groups_in_order(k, parsed.group_size),
        count,
        BITS,
        stored.format(),
    )
    .starting_from(scales, zeros);
    let codes = grid.requantize(weight, symmetric, how.search);

    let format = parsed.scales.float_format()?;
    // A fit takes finite scales only.
    let bytes = format.to_bytes(&grid.scales);
    let [qweight, qzeros, scales] = match parsed.version {
        AwqVersion::Gemm => [
            gemm_words(&codes, [n, k]),
            gemm_words(&grid.zeros, [n, count]),
            transpose(&bytes, format.size(), [n, count]),
        ],
        AwqVersion::Gemv => [
            Codes::pack(4, codes).bytes.to_vec(),
            gemv_zeros(parsed.qzeros.bytes(), &grid.zeros, n),
            with_starts(parsed.scales.bytes(), &bytes, n),
        ],
    };
    let layer = &how.current;
    layer.with_rest(vec![
        layer.rewritten("qweight", qweight)?,
        layer.rewritten("qzeros", qzeros)?,
        layer.rewritten("scales", scales)?,
    ])
}

/// Zero points in the GEMV layout; what fills the rows up stays.
pub fn gemv_zeros(stored: &[u8], zeros: &[u8], rows: usize) -> Vec<u8> {
    let mut bytes = stored.to_vec();
    let lines = bytes.chunks_exact_mut(stored.len() / rows);
    for (line, zeros) in lines.zip(zeros.chunks_exact(zeros.len() / rows)) {
        for (group, zero) in zeros.iter().enumerate() {
            let (byte, shift) = (&mut line[group / 2], 4 * (group % 2));
            *byte = *byte & !(15 << shift) | zero << shift;
        }
    }
    bytes
}

/// Rows with another start each.
pub fn with_starts(stored: &[u8], starts: &[u8], rows: usize) -> Vec<u8> {
    let mut bytes = stored.to_vec();
    let lines = bytes.chunks_exact_mut(stored.len() / rows);
    for (line, start) in lines.zip(starts.chunks_exact(starts.len() / rows)) {
        line[..start.len()].copy_from_slice(start);
    }
    bytes
}
