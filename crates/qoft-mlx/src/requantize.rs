//! Quantizing a changed weight of a layer. Groups that have not changed keep their scales and offsets.

use qoft_scheme::kernels::{Codes, Matrix};
use qoft_scheme::{KeptBlocks, NewTensor, Requantize, Result};

use crate::config::Parameters;
use crate::layout::{BIASES, MlxLayer, SCALES, WEIGHT};
use crate::quantize::{AffineGrid, float_grid, scale_bytes};

/// The layer again, with its parameters and the dtype of its scales.
///
/// # Errors
/// If a scale or an offset is not finite, or a tensor is missing.
pub fn requantize(parsed: &MlxLayer, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let Parameters {
        mode,
        group_size,
        bits,
    } = parsed.parameters;
    let kept = KeptBlocks::new(weight, &parsed.packed()?, [1, group_size]);
    let layer = &how.current;
    let words = |codes| layer.rewritten(WEIGHT, Codes::pack(bits, codes).bytes.to_vec());
    let Some(biases) = &parsed.biases else {
        let mut bytes = scale_bytes(weight, mode, group_size);
        kept.restore(&mut bytes, parsed.scales.bytes());
        let grid = float_grid(mode, group_size, weight.shape[1], &bytes);
        let codes = how.search.codes(weight, &grid);
        return layer.with_rest(vec![words(codes)?, layer.rewritten(SCALES, bytes)?]);
    };
    let format = parsed.scales.float_format()?;
    let mut grid = AffineGrid::new(weight, group_size, bits, format)?;
    let (scales, biases) = (parsed.scales.to_finite_f32()?, biases.to_finite_f32()?);
    grid.keep(&kept, &scales, &biases);
    let codes = how.search.codes(weight, &grid);
    layer.with_rest(vec![
        words(codes)?,
        layer.rewritten(SCALES, format.to_bytes(&grid.stored_scales))?,
        layer.rewritten(BIASES, format.to_bytes(&grid.stored_biases))?,
    ])
}
