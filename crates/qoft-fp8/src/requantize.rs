//! Quantizing a changed weight of a layer. Blocks that have not changed keep their scales.

use qoft_scheme::kernels::{Matrix, powers_of_two};
use qoft_scheme::{KeptBlocks, NewTensor, Requantize, Result};

use crate::layout::{Fp8Layer, is_power};
use crate::quantize::{Blocks, ScaleFormat};
use crate::tensors::WEIGHT;

/// The layer again, with its blocks and the dtype of its scales; fixed scales of inputs stay.
///
/// # Errors
/// If a scale is not finite, or a tensor is missing.
pub fn requantize(parsed: &Fp8Layer, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let format = ScaleFormat::of(&parsed.scales)?;
    let mut blocks = Blocks::new(weight, parsed.blocks, format, 0.0)?;
    let kept = KeptBlocks::new(weight, &parsed.packed()?, parsed.blocks);
    blocks.keep(&kept, &stored_scales(parsed)?);
    let codes = how.search.codes(weight, &blocks);
    let layer = &how.current;
    layer.with_rest(vec![
        layer.rewritten(WEIGHT, codes)?,
        layer.rewritten(parsed.scales_name, blocks.scale_bytes())?,
    ])
}

/// The scales in the file.
fn stored_scales(parsed: &Fp8Layer) -> Result<Vec<f32>> {
    if !is_power(&parsed.scales) {
        return parsed.scales.to_finite_f32();
    }
    let powers = powers_of_two();
    let bytes = parsed.scales.bytes().iter();
    Ok(bytes.map(|&byte| powers[usize::from(byte)]).collect())
}
