//! Finding scales and zero points as the library does on a CPU, in `f32`.

use qoft_scheme::{LayerSource, Result, column_mean, mean};
use rayon::prelude::*;

use crate::config::{Axis, flag, number};

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

/// What the library looks at when it quantizes a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solver {
    /// The largest code.
    pub largest: f32,
    /// Zero points are whole numbers at first.
    pub round_zero: bool,
    /// Zero points are adjusted to the weights.
    pub optimize: bool,
}

impl Solver {
    /// That of a layer.
    ///
    /// # Errors
    /// If a setting is impossible.
    pub fn of_layer(layer: &LayerSource) -> Result<Self> {
        let new = Self::new(number(&layer.tensor("nbits")?)?);
        let flag = |name, default| match layer.get(name) {
            None => Ok(default),
            Some(tensor) => flag(&tensor),
        };
        Ok(Self {
            round_zero: flag("round_zero", new.round_zero)?,
            optimize: flag("optimize", new.optimize)?,
            ..new
        })
    }

    /// What the library does for so many bits unless it is told otherwise.
    pub fn new(bits: f64) -> Self {
        Self {
            // 1.58 bits are three codes.
            largest: (bits.exp2() - 1.0).round() as f32,
            round_zero: bits == 4.0,
            optimize: true,
        }
    }
}

impl Solver {
    /// Factors from weights to codes, and zero points, of groups of so many weights, which are given
    /// group by group.
    pub fn solve(&self, weights: &[f32], size: usize, axis: Axis) -> (Vec<f32>, Vec<f32>) {
        let groups = weights.par_chunks_exact(size);
        let (scales, mut zeros): (Vec<f32>, Vec<f32>) =
            groups.clone().map(|group| self.range(group)).unzip();
        let (mut errors, count) = (vec![0.0; weights.len()], scales.len());
        let mut best = f32::INFINITY;
        for _ in 0..ITERATIONS {
            if !self.optimize {
                break;
            }
            let adjusted = groups.clone().zip(&scales).zip(&zeros);
            let adjusted = adjusted.zip(errors.par_chunks_exact_mut(size)).enumerate();
            let adjusted = adjusted.map(|(at, (((group, &scale), &zero), errors))| {
                let terms = self.adjusted(group, scale, zero, errors);
                match axis {
                    Axis::Rows => mean(&terms),
                    Axis::Columns => column_mean(&terms, at, count),
                }
            });
            // The library keeps the zero points even if they were not better any more.
            zeros = adjusted.collect();
            let error = match axis {
                Axis::Rows => mean(&errors),
                Axis::Columns => mean(&columns(&errors, size)),
            };
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
            // torch divides a number by a tensor so: it multiplies with the reciprocal.
            ((high - low).recip() * self.largest).min(MOST)
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
    pub fn error(&self, group: &[f32], code: (f32, f32), stored: (f32, f32)) -> f64 {
        let errors = group.iter().map(|&weight| {
            let code = self.code(weight, code.0, code.1);
            weight - (code - stored.1) * stored.0
        });
        squares(errors)
    }

    /// Numbers whose mean is a better zero point; `errors` get the magnitudes of those before.
    fn adjusted(&self, group: &[f32], scale: f32, zero: f32, errors: &mut [f32]) -> Vec<f32> {
        let pairs = group.iter().zip(errors);
        let term = |(&weight, magnitude): (&f32, &mut f32)| {
            let code = self.code(weight, scale, zero);
            let error = weight - (code - zero) / scale;
            *magnitude = error.abs();
            code - (weight - shrunk(error)) * scale
        };
        pairs.map(term).collect()
    }
}

/// The sum of the squares.
pub fn squares(values: impl Iterator<Item = f32>) -> f64 {
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

/// Weights group by group.
pub fn by_groups(values: Vec<f32>, axis: Axis, groups: usize) -> Vec<f32> {
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
