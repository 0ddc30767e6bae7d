//! Quantizing a changed weight of a layer.
//!
//! Groups that have not changed keep their scales. So does a tensor of NVFP4 its scale of the scales,
//! which it may share with others that have the same input, unless a weight is too large for it.

use qoft_scheme::kernels::{
    FP4, Fp8Format, Matrix, block_ranges, equal_blocks, fp4_code, powers_of_two,
};
use qoft_scheme::{FloatGrid, Grid, LayerSource, NewTensor, Requantize, Result};

use crate::layout::{Format, ModeloptLayer, SCALES, TENSOR_SCALE, WEIGHT};
use crate::quantize::{Fp8Grid, fp8_code, nvfp4_grid, nvfp4_scales, pairs, reaches, tensor_scale};

/// The layer again, in its format.
///
/// # Errors
/// If a scale is not finite, or a tensor is missing.
pub fn requantize(
    parsed: &ModeloptLayer,
    weight: &Matrix,
    how: &Requantize,
) -> Result<Vec<NewTensor>> {
    let before = Matrix::decode(&parsed.packed()?);
    let kept = equal_blocks(weight, &before, parsed.blocks);
    drop(before);
    let (layer, k) = (&how.current, parsed.shape[1]);
    let keep = |bytes: &mut [u8]| {
        let stored = parsed.scales.bytes().iter().zip(&kept);
        for (byte, (&stored, _)) in bytes.iter_mut().zip(stored).filter(|(_, (_, kept))| **kept) {
            *byte = stored;
        }
    };
    let mut changed = Vec::new();
    let grid: Box<dyn Grid> = match parsed.format {
        Format::Nvfp4(stored) => {
            let needed = tensor_scale(weight);
            let fits = weight.values.iter().all(|v| *v == 0.0) || needed <= stored;
            let tensor = if fits { stored } else { needed };
            let group_size = parsed.blocks[1];
            let mut bytes = nvfp4_scales(weight, group_size, tensor);
            if fits {
                keep(&mut bytes);
            }
            let grid = nvfp4_grid(&bytes, group_size, k, tensor);
            changed.push(layer.rewritten(SCALES, bytes)?);
            changed.push(layer.rewritten(TENSOR_SCALE, scalar(layer, tensor)?)?);
            Box::new(grid)
        }
        Format::Mxfp4 | Format::Mxfp8 => {
            let group_size = parsed.blocks[1];
            let mut bytes = powers(weight, group_size, parsed.format.is_fp4());
            keep(&mut bytes);
            let powers = powers_of_two();
            let numbers: Box<[f32]> = match parsed.format.is_fp4() {
                true => Box::new(FP4),
                false => Fp8Format::E4m3.table(),
            };
            let code = match parsed.format.is_fp4() {
                true => fp4_code,
                false => fp8_code,
            };
            let scales = bytes
                .iter()
                .map(|&byte| powers[usize::from(byte)])
                .collect();
            let grid = FloatGrid::new(numbers, code).with_scales(scales, k, group_size);
            changed.push(layer.rewritten(SCALES, bytes)?);
            Box::new(grid)
        }
        Format::Fp8 => {
            let mut scales = reaches(weight, parsed.blocks, Fp8Format::E4m3.max());
            let stored = parsed.scales.to_finite_f32()?;
            let format = parsed.scales.float_format()?;
            format.round(&mut scales);
            for (scale, (&stored, _)) in scales
                .iter_mut()
                .zip(stored.iter().zip(&kept))
                .filter(|(_, (_, kept))| **kept)
            {
                *scale = stored;
            }
            changed.push(layer.rewritten(SCALES, format.to_bytes(&scales))?);
            Box::new(Fp8Grid::new(scales, parsed.blocks, k))
        }
    };
    let codes = how.search.codes(weight, &*grid);
    let codes = match parsed.format.is_fp4() {
        true => pairs(&codes),
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

/// Exponents that bring each group's largest weight to the largest number or just below it.
fn powers(weight: &Matrix, group_size: usize, fp4: bool) -> Vec<u8> {
    let largest = if fp4 { FP4[7] } else { Fp8Format::E4m3.max() };
    let ranges = block_ranges(weight, [1, group_size]).into_iter();
    let exponent = |[low, high]: [f32; 2]| {
        // The larger of two zeros may be the negative one.
        let bits = (high.max(-low).abs() / largest).to_bits();
        // The next power of two, unless it is one.
        ((bits >> 23) + u32::from(bits << 9 != 0)).min(254) as u8
    };
    ranges.map(exponent).collect()
}
