//! Quantizing a changed weight of a layer. Blocks that have not changed keep scales and zero points.

use qoft_scheme::kernels::{Codes, Matrix, transpose};
use qoft_scheme::{KeptBlocks, NewTensor, Requantize, Result};

use crate::description::Kind;
use crate::grid::{AoGrid, Mapping, Rule};
use crate::layout::{AoLayer, BOTH, CODES, SCALES, ZEROS, tiles_shape};
use crate::tiles;

/// The layer again, in its tensor type.
///
/// # Errors
/// If a scale is not finite, or a tensor is missing.
pub fn requantize(parsed: &AoLayer, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let kept = KeptBlocks::new(weight, &parsed.packed()?, parsed.blocks);
    let (scales, zeros) = (parsed.scale_values()?, parsed.zero_values()?);
    let mapping = match zeros.iter().all(|zero| *zero == 0.0) {
        true => Mapping::Symmetric,
        false => Mapping::Asymmetric,
    };
    let rule = Rule {
        kind: parsed.kind,
        blocks: parsed.blocks,
        mapping,
        format: parsed.format,
        float8: parsed.float8(),
    };
    let mut grid = AoGrid::new(weight, rule);
    for block in kept.iter() {
        grid.keep(block, scales[block], zeros[block]);
    }
    let codes = how.search.codes(weight, &grid);
    let (layer, format) = (&how.current, parsed.scales.float_format()?);
    let groups = [parsed.shape[0], parsed.shape[1] / parsed.blocks[1]];
    let mut changed = Vec::new();
    match parsed.kind {
        Kind::Int4Tiles => {
            let [padded, columns] = tiles_shape(&parsed.codes)?;
            let mut words = parsed.codes.bytes().to_vec();
            tiles::pack(
                &mut words,
                columns,
                &tiles::centered(&codes),
                parsed.shape[1],
            );
            let mut both = parsed.scales.to_finite_f32()?;
            scales_and_zeros(&mut both, &grid, padded, groups[1]);
            changed.push(layer.rewritten(CODES, words)?);
            changed.push(layer.rewritten(BOTH, format.to_bytes(&both))?);
        }
        Kind::Int4 => {
            changed.push(layer.rewritten(CODES, Codes::pack(4, codes).bytes.to_vec())?);
            for (name, values) in [(SCALES, &grid.scales), (ZEROS, &grid.zeros)] {
                let format = layer.tensor(name)?.float_format()?;
                let bytes = transpose(&format.to_bytes(values), format.size(), groups);
                changed.push(layer.rewritten(name, bytes)?);
            }
        }
        Kind::Int8 { .. } | Kind::Intx(_) | Kind::Float8 => {
            changed.push(layer.rewritten(CODES, codes)?);
            changed.push(layer.rewritten(SCALES, format.to_bytes(&grid.scales))?);
            if parsed.zeros.is_some() {
                changed.push(layer.rewritten(ZEROS, bytes(&grid.zeros))?);
            }
        }
    }
    layer.with_rest(changed)
}

/// Puts the scales and zero points of a grid with `groups` groups a row to those of `rows` rows; the others
/// stay.
pub fn scales_and_zeros(both: &mut [f32], grid: &AoGrid, rows: usize, groups: usize) {
    for (at, (&scale, &zero)) in grid.scales.iter().zip(&grid.zeros).enumerate() {
        let place = (at % groups * rows + at / groups) * 2;
        both[place..place + 2].copy_from_slice(&[scale, zero]);
    }
}

/// Zero points as signed bytes.
pub fn bytes(zeros: &[f32]) -> Vec<u8> {
    zeros.iter().map(|zero| *zero as i8 as u8).collect()
}
