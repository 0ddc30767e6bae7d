//! Quantizing a changed weight of a layer.
//!
//! Groups that have not changed keep their scales. So does a tensor of NVFP4 its scale of the scales,
//! which it may share with others that have the same input, unless a weight is too large for it.

use qoft_scheme::kernels::{
    FP4, Fp8Format, Matrix, block_exponents, code_pairs, fp4_code, powers_of_two,
};
use qoft_scheme::{FloatGrid, Grid, KeptBlocks, LayerSource, NewTensor, Requantize, Result};

use crate::layout::{Format, ModeloptLayer, SCALES, TENSOR_SCALE, WEIGHT};
use crate::quantize::{Fp8Grid, nvfp4_grid, nvfp4_scales, reaches, tensor_scale};

/// The layer again, in its format.
///
/// # Errors
/// If a scale is not finite, or a tensor is missing.
pub fn requantize(
    parsed: &ModeloptLayer,
    weight: &Matrix,
    how: &Requantize,
) -> Result<Vec<NewTensor>> {
    let kept = KeptBlocks::new(weight, &parsed.packed()?, parsed.blocks);
    let (layer, k) = (&how.current, parsed.shape[1]);
    let mut changed = Vec::new();
    let grid: Box<dyn Grid> = match parsed.format {
        Format::Nvfp4(stored) => {
            let needed = tensor_scale(weight);
            let fits = weight.values.iter().all(|v| *v == 0.0) || needed <= stored;
            let tensor = if fits { stored } else { needed };
            let group_size = parsed.blocks[1];
            let mut bytes = nvfp4_scales(weight, group_size, tensor);
            if fits {
                kept.restore(&mut bytes, parsed.scales.bytes());
            }
            let grid = nvfp4_grid(&bytes, group_size, k, tensor);
            changed.push(layer.rewritten(SCALES, bytes)?);
            changed.push(layer.rewritten(TENSOR_SCALE, scalar(layer, tensor)?)?);
            Box::new(grid)
        }
        Format::Mxfp4 | Format::Mxfp8 => {
            let group_size = parsed.blocks[1];
            let largest = match parsed.format.is_fp4() {
                true => FP4[7],
                false => Fp8Format::E4m3.max(),
            };
            let mut bytes = block_exponents(weight, [1, group_size], largest);
            kept.restore(&mut bytes, parsed.scales.bytes());
            let numbers: Box<[f32]> = match parsed.format.is_fp4() {
                true => Box::new(FP4),
                false => Fp8Format::E4m3.table(),
            };
            let code: fn(f32) -> u8 = match parsed.format.is_fp4() {
                true => fp4_code,
                false => |value| Fp8Format::E4m3.nearest_code(value),
            };
            let grid = FloatGrid::new(numbers, code);
            let grid = grid.with_coded_scales(&bytes, &powers_of_two(), k, group_size);
            changed.push(layer.rewritten(SCALES, bytes)?);
            Box::new(grid)
        }
        Format::Fp8 => {
            let mut scales = reaches(weight, parsed.blocks, Fp8Format::E4m3.max());
            let stored = parsed.scales.to_finite_f32()?;
            let format = parsed.scales.float_format()?;
            format.round(&mut scales);
            kept.restore(&mut scales, &stored);
            changed.push(layer.rewritten(SCALES, format.to_bytes(&scales))?);
            Box::new(Fp8Grid::new(scales, parsed.blocks, k))
        }
    };
    let codes = how.search.codes(weight, &*grid);
    let codes = match parsed.format.is_fp4() {
        true => code_pairs(&codes),
        false => codes,
    };
    changed.push(layer.rewritten(WEIGHT, codes)?);
    layer.with_rest(changed)
}

/// One number in the dtype that the file has for it.
fn scalar(layer: &LayerSource, value: f32) -> Result<Vec<u8>> {
    let format = layer.tensor(TENSOR_SCALE)?.float_format()?;
    Ok(format.to_bytes(&[value]))
}
