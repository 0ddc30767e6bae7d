//! Quantizing as the library does on a CPU, in `f32`.
//!
//! A group gets the scale and the zero point that the library finds for it, however little it has
//! changed: with the old ones a small change is rounded away. There are two exceptions. A group that
//! has not changed at all keeps its own. So does one that the library would destroy, which it does
//! with few codes and weights of two sizes, if its own are better.

use qoft_scheme::kernels::{FloatFormat, Floats, Matrix};
use qoft_scheme::{
    Grid, LayerSource, LoadOptions, NewTensor, QuantBackend, RequantizeOptions, Result,
};
use rayon::prelude::*;

use crate::config::{Axis, LayerConfig, Quantizer};
use crate::layout::Reshaped;
use crate::repack::pack;

/// Ranges up to here have a scale of 1.
const NO_RANGE: f32 = 1e-4;
/// The largest factor between weights and codes.
const MOST: f32 = 2e4;
/// Adjustments of the zero points, at most.
const ITERATIONS: usize = 20;
/// The norm of errors that adjustments minimize is the sum of their powers of 0.7.
const POWER: f32 = 0.7 - 1.0;
/// The share of a power that errors are reduced by: one by the library's `beta`.
const STEP: f32 = 0.1;
/// Errors up to here are reduced to 0: they are smaller than `STEP` times their own power.
const NOTHING_LEFT: f32 = 0.17;

/// Errors of more than this share of the squares of a group's weights destroy it.
const DESTROYED: f64 = 0.25;

/// The layer again, with its settings, groups and dtypes.
pub fn requantize(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    weight: &Matrix,
    options: &RequantizeOptions,
) -> Result<Vec<NewTensor>> {
    let config = LayerConfig::read(backend, layer)?;
    let quantizer = Quantizer::read(layer)?;
    layer.check_weight(backend, weight, config.shape)?;
    let Reshaped {
        groups,
        sizes,
        metadata,
    } = Reshaped::of(backend, layer, &config)?;
    let grouped = by_groups(weight.values.clone(), config.axis, groups);
    let (mut scales, mut zeros) = quantizer.solve(&grouped, config.group_size);

    let scale = layer.tensor("scale")?;
    let format = scale.expect_shape(&metadata)?.float_format()?;
    let stored = |values: &[f32]| {
        let floats = Floats::from_f32(values, format).map_err(layer.weight_error(backend))?;
        let mut values = vec![0.0; floats.len()];
        floats.read(0, &mut values);
        Ok(values)
    };
    let inverse: Vec<f32> = scales.iter().map(|scale| 1.0 / scale).collect();
    let (mut stored_scales, mut stored_zeros) = (stored(&inverse)?, stored(&zeros)?);
    let old_scales = scale.to_finite_f32()?;
    let old_zeros = layer
        .tensor("zero")?
        .expect_shape(&metadata)?
        .to_finite_f32()?;
    let size = config.group_size;
    let before = by_groups(decoded(backend, layer)?, config.axis, groups);
    let pairs = grouped
        .par_chunks_exact(size)
        .zip(before.par_chunks_exact(size));
    let kept = pairs.enumerate().map(|(group, (weights, before))| {
        let new = (stored_scales[group], stored_zeros[group]);
        let old = (old_scales[group], old_zeros[group]);
        let error = quantizer.error(weights, (scales[group], zeros[group]), new);
        let destroyed = error > DESTROYED * squares(weights.iter().copied())
            && error > quantizer.error(weights, (1.0 / old.0, old.1), old);
        destroyed || weights == before
    });
    let kept: Vec<bool> = kept.collect();
    drop((grouped, before));
    for group in (0..groups).filter(|&group| kept[group]) {
        let (scale, zero) = (old_scales[group], old_zeros[group]);
        (scales[group], zeros[group]) = (1.0 / scale, zero);
        (stored_scales[group], stored_zeros[group]) = (scale, zero);
    }
    let grid = Groups {
        stored_scales,
        stored_zeros,
        largest: quantizer.largest,
        cols: weight.shape[1],
        axis: config.axis,
        size,
        format,
        scales,
        zeros,
    };
    let codes = options.search.codes(weight, &grid);
    let words = pack(&codes, sizes[0], config.packing);
    let packed = layer.tensor("W_q")?;
    if words.len() != packed.bytes().len() {
        let expected = format!("{} bytes of packed codes", words.len());
        return Err(packed.error(expected, packed.bytes().len()));
    }
    let tensor = |name| match name {
        "W_q" => layer.rewritten(name, words.clone()),
        "scale" => layer.rewritten(name, format.to_bytes(&grid.stored_scales)),
        "zero" => layer.rewritten(name, format.to_bytes(&grid.stored_zeros)),
        _ => layer.copy(name),
    };
    let names = layer.suffixes().filter(|name| *name != "bias");
    names.map(tensor).collect()
}

/// The weights that the layer stands for.
fn decoded(backend: &dyn QuantBackend, layer: &LayerSource) -> Result<Vec<f32>> {
    let loaded = backend.load(layer, &LoadOptions::default())?;
    Ok(Matrix::decode(&*loaded.weight).values)
}

/// Weights group by group.
fn by_groups(values: Vec<f32>, axis: Axis, groups: usize) -> Vec<f32> {
    match axis {
        Axis::Rows => values,
        Axis::Columns => columns(&values, groups),
    }
}

/// Weights of groups that take turns, group by group.
fn columns(values: &[f32], groups: usize) -> Vec<f32> {
    let group = |group| values.iter().copied().skip(group).step_by(groups);
    (0..groups).flat_map(group).collect()
}

impl Quantizer {
    /// Factors from weights to codes, and zero points, of groups of so many weights.
    fn solve(&self, weights: &[f32], size: usize) -> (Vec<f32>, Vec<f32>) {
        let groups = weights.par_chunks_exact(size);
        let (scales, mut zeros): (Vec<f32>, Vec<f32>) =
            groups.clone().map(|group| self.range(group)).unzip();
        let mut best = f32::INFINITY;
        for _ in 0..ITERATIONS {
            if !self.optimize {
                break;
            }
            let adjusted = groups.clone().zip(&scales).zip(&zeros);
            let (adjusted, errors): (Vec<f32>, Vec<f64>) = adjusted
                .map(|((group, &scale), &zero)| self.adjusted(group, scale, zero))
                .unzip();
            // The library keeps the zero points even if they were not better any more.
            zeros = adjusted;
            let error = (errors.iter().sum::<f64>() / weights.len() as f64) as f32;
            if error >= best {
                break;
            }
            best = error;
        }
        (scales, zeros)
    }

    /// The scale and the zero point that follow from a group's range.
    fn range(&self, group: &[f32]) -> (f32, f32) {
        let low = group.iter().fold(f32::INFINITY, |low, v| low.min(*v));
        let high = group.iter().fold(f32::NEG_INFINITY, |high, v| high.max(*v));
        let scale = if high - low <= NO_RANGE {
            1.0
        } else {
            (self.largest / (high - low)).min(MOST)
        };
        let zero = -low * scale;
        (
            scale,
            if self.round_zero {
                zero.round_ties_even()
            } else {
                zero
            },
        )
    }

    fn code(&self, weight: f32, scale: f32, zero: f32) -> f32 {
        (weight * scale + zero)
            .round_ties_even()
            .clamp(0.0, self.largest)
    }

    /// The sum of the squared errors with a factor and a zero point for codes, and the scale and
    /// the zero point that readers find.
    fn error(&self, group: &[f32], code: (f32, f32), stored: (f32, f32)) -> f64 {
        let errors = group.iter().map(|&weight| {
            let code = self.code(weight, code.0, code.1);
            weight - (code - stored.1) * stored.0
        });
        squares(errors)
    }

    /// A better zero point, and the sum of the errors before.
    fn adjusted(&self, group: &[f32], scale: f32, zero: f32) -> (f32, f64) {
        let (mut sum, mut errors) = (0.0f64, 0.0f64);
        for &weight in group {
            let code = self.code(weight, scale, zero);
            let error = weight - (code - zero) / scale;
            sum += f64::from(code - (weight - shrunk(error)) * scale);
            errors += f64::from(error.abs());
        }
        ((sum / group.len() as f64) as f32, errors)
    }
}

fn squares(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value).powi(2)).sum()
}

/// What of an error is left to outliers.
fn shrunk(error: f32) -> f32 {
    let size = error.abs();
    if size < NOTHING_LEFT {
        return 0.0;
    }
    let left = (size - STEP * size.powf(POWER)).max(0.0);
    left.copysign(error)
}

/// The numbers of a layer.
struct Groups {
    /// What the library chooses codes with.
    scales: Vec<f32>,
    zeros: Vec<f32>,
    /// What readers find.
    stored_scales: Vec<f32>,
    stored_zeros: Vec<f32>,
    largest: f32,
    cols: usize,
    axis: Axis,
    size: usize,
    format: FloatFormat,
}

impl Grid for Groups {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let flat = n * self.cols + k;
        let group = match self.axis {
            Axis::Rows => flat / self.size,
            Axis::Columns => flat % self.zeros.len(),
        };
        let code = value * self.scales[group] + self.zeros[group];
        let code = code.round_ties_even().clamp(0.0, self.largest);
        let mut number = [code - self.stored_zeros[group]];
        self.format.round(&mut number);
        number[0] *= self.stored_scales[group];
        self.format.round(&mut number);
        (code as u8, number[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_errors_are_reduced_to_nothing() {
        for size in [0.0f32, 1e-30, 0.01, 0.1, NOTHING_LEFT.next_down()] {
            assert!(size - STEP * size.powf(POWER) <= 0.0);
        }
        assert!(shrunk(0.5) > 0.0 && shrunk(-0.5) == -shrunk(0.5));
    }

    #[test]
    fn groups_that_take_turns_are_gathered() {
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(columns(&values, 3), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }
}
