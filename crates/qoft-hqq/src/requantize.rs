//! Quantizing a changed weight of a layer.
//!
//! A group gets the scale and the zero point that the library finds for it, however little it has
//! changed: with the old ones a small change is rounded away. There are three exceptions. A group that
//! has not changed at all keeps its own. So does one that the library would destroy, which it does
//! with few codes and weights of two sizes, if its own are better. And a search that chooses scales
//! itself starts from the old ones.

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{NewTensor, Requantize, Result};
use rayon::prelude::*;

use crate::layout::HqqLayer;
use crate::quantize::{Numbers, stored};
use crate::repack::pack;
use crate::solve::{by_groups, squares};

/// Errors of more than this share of the squares of a group's weights destroy it.
const DESTROYED: f64 = 0.25;

/// The layer again, with its settings, groups and dtypes.
///
/// # Errors
/// If a scale or a zero point is not finite, or a tensor is missing.
pub fn requantize(parsed: &HqqLayer, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let format = parsed.scale.float_format()?;
    let old_scales = parsed.scale.to_finite_f32()?;
    let old_zeros = parsed.zero.to_finite_f32()?;
    let old = Numbers {
        scales: old_scales.iter().map(|scale| 1.0 / scale).collect(),
        zeros: old_zeros.clone(),
        stored_scales: old_scales,
        stored_zeros: old_zeros,
        largest: parsed.solver.largest,
        cols: weight.shape[1],
        axis: parsed.config.axis,
        size: parsed.config.group_size,
        format,
    };
    let (codes, scales, zeros) = match (how.search.with_scales(), old.within_rows()) {
        (Some(search), Some(rows)) => {
            let found = search.codes_and_scales(weight, &rows);
            (found.codes, found.scales, old.stored_zeros)
        }
        _ => {
            let grid = solved(parsed, weight, old)?;
            let codes = how.search.codes(weight, &grid);
            (codes, grid.stored_scales, grid.stored_zeros)
        }
    };
    let words = pack(&codes, parsed.reshaped.sizes[0], parsed.config.packing);
    let layer = &how.current;
    layer.with_rest(vec![
        layer.rewritten("W_q", words)?,
        layer.rewritten("scale", format.to_bytes(&scales))?,
        layer.rewritten("zero", format.to_bytes(&zeros))?,
    ])
}

/// The scales and zero points of a changed weight, where some groups keep those in `old`.
fn solved(parsed: &HqqLayer, weight: &Matrix, old: Numbers) -> Result<Numbers> {
    let (solver, groups) = (parsed.solver, parsed.reshaped.groups);
    let Numbers {
        axis, size, format, ..
    } = old;
    let grouped = by_groups(&weight.values, axis, groups);
    let (mut scales, mut zeros) = solver.solve(&grouped, size, axis);
    let inverse: Vec<f32> = scales.iter().map(|scale| 1.0 / scale).collect();
    let (mut stored_scales, mut stored_zeros) =
        (stored(&inverse, format)?, stored(&zeros, format)?);
    let before = Matrix::decode(&parsed.packed()?).values;
    let before = by_groups(&before, axis, groups);
    let pairs = grouped
        .par_chunks_exact(size)
        .zip(before.par_chunks_exact(size));
    let kept = pairs.enumerate().map(|(group, (weights, before))| {
        let new = (stored_scales[group], stored_zeros[group]);
        let old = (old.stored_scales[group], old.stored_zeros[group]);
        let error = solver.error(weights, (scales[group], zeros[group]), new);
        let destroyed = error > DESTROYED * squares(weights.iter().copied())
            && error > solver.error(weights, (1.0 / old.0, old.1), old);
        destroyed || weights == before
    });
    let kept: Vec<bool> = kept.collect();
    drop((grouped, before));
    for group in (0..groups).filter(|&group| kept[group]) {
        let (scale, zero) = (old.stored_scales[group], old.stored_zeros[group]);
        (scales[group], zeros[group]) = (1.0 / scale, zero);
        (stored_scales[group], stored_zeros[group]) = (scale, zero);
    }
    Ok(Numbers {
        scales,
        zeros,
        stored_scales,
        stored_zeros,
        ..old
    })
}
