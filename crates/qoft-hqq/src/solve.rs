//! Finding scales and zero points as the library does on a CPU, in `f32`.

use std::borrow::Cow;

use qoft_scheme::kernels::wide;
use qoft_scheme::{LayerSource, MeanInParts, PartOfMean, Result, column_mean, mean};
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
/// Weights that are compared beside each other.
const LANES: usize = 16;
/// Weights that a thread takes at a time, about.
const SHARE: usize = 1 << 14;
/// Groups that take turns and are gathered together.
const BESIDE: usize = 16;

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

/// Groups whose zero points one thread adjusts.
struct Share<'a> {
    weights: &'a [f32],
    /// Weights of a group.
    size: usize,
    scales: &'a [f32],
    zeros: &'a mut [f32],
    /// The magnitudes of errors, one for each weight.
    errors: &'a mut [f32],
}

impl Solver {
    /// Factors from weights to codes, and zero points, of groups of so many weights, which are given
    /// group by group.
    pub fn solve(&self, weights: &[f32], size: usize, axis: Axis) -> (Vec<f32>, Vec<f32>) {
        let groups = weights.par_chunks_exact(size);
        let groups = groups.with_min_len(SHARE.div_ceil(size));
        let (scales, mut zeros): (Vec<f32>, Vec<f32>) =
            groups.map(|group| wide!(self.range(group))).unzip();
        let mut best = f32::INFINITY;
        for _ in 0..ITERATIONS {
            if !self.optimize {
                break;
            }
            let error = match axis {
                Axis::Rows => self.adjust_rows(weights, size, &scales, &mut zeros),
                Axis::Columns => self.adjust_columns(weights, size, &scales, &mut zeros),
            };
            // The library keeps the zero points even if they were not better any more.
            if error >= best {
                break;
            }
            best = error;
        }
        (scales, zeros)
    }

    /// Adjusts the zero points; the mean of the errors before. These are added up where they are
    /// found: those of a whole layer do not fit into a cache.
    fn adjust_rows(&self, weights: &[f32], size: usize, scales: &[f32], zeros: &mut [f32]) -> f32 {
        let whole = MeanInParts::of(weights.len());
        let part = whole.size();
        // A share is whole groups, and whole parts, whose size is a power of two.
        let both = size << part.trailing_zeros().saturating_sub(size.trailing_zeros());
        let share = both * (SHARE / both).max(1);
        let (groups, parts) = (share / size, share / part);
        let mut sums = vec![PartOfMean::default(); weights.len().div_ceil(share) * parts];
        let shares = weights.par_chunks(share).zip(scales.par_chunks(groups));
        let shares = shares.zip(zeros.par_chunks_mut(groups));
        let shares = shares.zip(sums.par_chunks_mut(parts));
        let rests = shares.map_init(Vec::new, |errors, (((weights, scales), zeros), sums)| {
            errors.resize(weights.len(), 0.0);
            let share = Share {
                weights,
                size,
                scales,
                zeros,
                errors,
            };
            wide!(self.adjust(share, |_, terms| mean(terms)));
            let parts = errors.chunks_exact(part);
            let rest = parts.remainder().to_vec();
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum = wide!(whole.part(part));
            }
            rest
        });
        let rests: Vec<Vec<f32>> = rests.collect();
        let parts = sums.into_iter().take(weights.len() / part);
        // Only the last share has one.
        whole.finish(parts, rests.last().map_or(&[], Vec::as_slice))
    }

    /// The same for groups that take turns in the weight, in whose order errors are added up.
    fn adjust_columns(
        &self,
        weights: &[f32],
        size: usize,
        scales: &[f32],
        zeros: &mut [f32],
    ) -> f32 {
        let (count, groups) = (scales.len(), SHARE.div_ceil(size));
        let mut errors = vec![0.0; weights.len()];
        let shares = weights
            .par_chunks(groups * size)
            .zip(scales.par_chunks(groups));
        let shares = shares.zip(zeros.par_chunks_mut(groups));
        let shares = shares.zip(errors.par_chunks_mut(groups * size));
        let shares = shares.enumerate();
        shares.for_each(|(at, (((weights, scales), zeros), errors))| {
            let share = Share {
                weights,
                size,
                scales,
                zeros,
                errors,
            };
            let first = at * groups;
            wide!(self.adjust(share, |group, terms| {
                column_mean(terms, first + group, count)
            }));
        });
        mean(&columns(&errors, size))
    }

    /// Adjusts the zero points of some groups: each is the mean of a group's terms.
    #[inline(always)]
    fn adjust(&self, share: Share<'_>, mean: impl Fn(usize, &[f32]) -> f32) {
        let mut terms = vec![0.0; share.size];
        let groups = share.weights.chunks_exact(share.size).zip(share.scales);
        let groups = groups.zip(share.zeros);
        let groups = groups.zip(share.errors.chunks_exact_mut(share.size));
        for (at, (((group, &scale), zero), errors)) in groups.enumerate() {
            self.adjusted(group, (scale, *zero), errors, &mut terms);
            *zero = mean(at, &terms);
        }
    }

    /// The scale and the zero point that follow from a group's range.
    #[inline(always)]
    fn range(&self, group: &[f32]) -> (f32, f32) {
        let (low, high) = limits(group);
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

    /// The code of a weight, not yet as an integer.
    #[inline(always)]
    pub fn code(&self, weight: f32, scale: f32, zero: f32) -> f32 {
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
    #[inline(always)]
    fn adjusted(
        &self,
        group: &[f32],
        (scale, zero): (f32, f32),
        errors: &mut [f32],
        terms: &mut [f32],
    ) {
        // Nothing is left of almost all errors: their power, for which there are no vectors, is only
        // computed in groups where one is larger.
        let mut all_small = true;
        let places = group.iter().zip(errors).zip(&mut *terms);
        for ((&weight, magnitude), term) in places {
            let code = self.code(weight, scale, zero);
            let size = (weight - (code - zero) / scale).abs();
            *magnitude = size;
            all_small &= size < NOTHING_LEFT;
            *term = code - weight * scale;
        }
        if !all_small {
            self.terms_of_outliers(group, (scale, zero), terms);
        }
    }

    /// The same numbers where errors are large.
    #[cold]
    fn terms_of_outliers(&self, group: &[f32], (scale, zero): (f32, f32), terms: &mut [f32]) {
        for (&weight, term) in group.iter().zip(terms) {
            let code = self.code(weight, scale, zero);
            let error = weight - (code - zero) / scale;
            *term = code - (weight - shrunk(error)) * scale;
        }
    }
}

/// The smallest and the largest weight of a group.
#[inline(always)]
fn limits(group: &[f32]) -> (f32, f32) {
    let mut lows = [f32::INFINITY; LANES];
    let mut highs = [f32::NEG_INFINITY; LANES];
    let (lanes, rest) = group.as_chunks::<LANES>();
    for weights in lanes {
        for ((low, high), &weight) in lows.iter_mut().zip(&mut highs).zip(weights) {
            *low = if weight < *low { weight } else { *low };
            *high = if weight > *high { weight } else { *high };
        }
    }
    let lows = lows.into_iter().chain(rest.iter().copied());
    let highs = highs.into_iter().chain(rest.iter().copied());
    (
        lows.fold(f32::INFINITY, f32::min),
        highs.fold(f32::NEG_INFINITY, f32::max),
    )
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
pub fn by_groups(values: &[f32], axis: Axis, groups: usize) -> Cow<'_, [f32]> {
    match axis {
        Axis::Rows => values.into(),
        Axis::Columns => columns(values, groups).into(),
    }
}

/// Weights of groups that take turns, group by group.
fn columns(values: &[f32], groups: usize) -> Vec<f32> {
    let size = values.len() / groups;
    let mut grouped = vec![0.0; values.len()];
    let strips = grouped.par_chunks_mut(BESIDE * size).enumerate();
    // Rows of weights are read in pieces of a line of the cache.
    strips.for_each(|(strip, grouped)| {
        let first = strip * BESIDE;
        for (at, row) in values.chunks_exact(groups).enumerate() {
            let beside = row[first..]
                .iter()
                .zip(grouped[at..].iter_mut().step_by(size));
            beside
                .take(BESIDE)
                .for_each(|(weight, place)| *place = *weight);
        }
    });
    grouped
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

    /// What [`Solver::solve`] does, one weight after another.
    fn one_by_one(solver: &Solver, weights: &[f32], size: usize, axis: Axis) -> [Vec<f32>; 2] {
        let groups: Vec<&[f32]> = weights.chunks_exact(size).collect();
        let ranges = groups.iter().map(|group| solver.range(group));
        let (scales, mut zeros): (Vec<f32>, Vec<f32>) = ranges.unzip();
        let mut best = f32::INFINITY;
        for _ in 0..ITERATIONS {
            let mut errors = Vec::new();
            for (at, group) in groups.iter().enumerate() {
                let term = |&weight: &f32| {
                    let code = solver.code(weight, scales[at], zeros[at]);
                    let error = weight - (code - zeros[at]) / scales[at];
                    errors.push(error.abs());
                    code - (weight - shrunk(error)) * scales[at]
                };
                let terms: Vec<f32> = group.iter().map(term).collect();
                zeros[at] = match axis {
                    Axis::Rows => mean(&terms),
                    Axis::Columns => column_mean(&terms, at, groups.len()),
                };
            }
            let error = mean(&by_groups(&errors, axis, size));
            if error >= best {
                break;
            }
            best = error;
        }
        [scales, zeros]
    }

    #[test]
    fn threads_and_vectors_change_no_bit() {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = (0..70_000).map(|_| next() * next() * next()).collect();
        for size in [3, 8, 20, 64, 96, 128, 1000, 1024, 4096] {
            // Errors of many bits are small; with few of large weights something is left of them.
            for (bits, factor) in [(4.0, 0.1), (8.0, 1.0), (2.0, 1.0), (1.0, 3.0)] {
                for count in [1, 5, 70_000 / size] {
                    let weights = values[..count * size].iter().map(|value| value * factor);
                    let weights: Vec<f32> = weights.collect();
                    let solver = Solver::new(bits);
                    for axis in [Axis::Rows, Axis::Columns] {
                        let (scales, zeros) = solver.solve(&weights, size, axis);
                        let expected = one_by_one(&solver, &weights, size, axis);
                        let bits = |numbers: [Vec<f32>; 2]| {
                            numbers.map(|all| all.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                        };
                        let what = format!(
                            "{count} groups of {size}, {bits} bits, {axis:?}",
                            bits = solver.largest
                        );
                        assert!(bits([scales, zeros]) == bits(expected), "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn groups_that_take_turns_are_gathered() {
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(columns(&values, 3), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }
}
