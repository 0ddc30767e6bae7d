//! Scales as the library chooses them, and the numbers that they lead to.

use qoft_scheme::Grid;
use qoft_scheme::kernels::{FloatFormat, Fp8Format, Matrix, block_ranges};

use crate::description::Kind;

/// The least range of 4-bit groups.
const LEAST_RANGE: f32 = 1e-6;
/// Steps between the smallest and the largest of 16 codes.
const STEPS: f32 = 15.0;

/// How zero points and scales of integers follow from the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// By the largest size; zero points are 0.
    Symmetric,
    /// By the side that needs the larger scale; zero points are 0.
    NoClipping,
    /// By both ends.
    Asymmetric,
}

/// What decides a layer's scales.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The tensor type.
    pub kind: Kind,
    /// Rows and columns that share a scale.
    pub blocks: [usize; 2],
    /// Zero points of integers.
    pub mapping: Mapping,
    /// The dtype of the dense weight.
    pub format: FloatFormat,
    /// The format of 8-bit floats.
    pub float8: Fp8Format,
}

/// The numbers of a layer.
pub struct AoGrid {
    rule: Rule,
    /// Blocks beside each other.
    count: usize,
    /// Scales and zero points as they are stored.
    pub scales: Vec<f32>,
    /// As before.
    pub zeros: Vec<f32>,
    /// What 4-bit codes are found by, before it is rounded: the smallest weight and the step; none for blocks
    /// that keep what they have.
    exact: Vec<Option<[f32; 2]>>,
}

impl AoGrid {
    /// Scales and zero points from the smallest and the largest weight of each block.
    pub fn new(weight: &Matrix, rule: Rule) -> Self {
        let ranges = block_ranges(weight, rule.blocks);
        let mut grid = Self {
            rule,
            count: weight.shape[1].div_ceil(rule.blocks[1]),
            scales: Vec::with_capacity(ranges.len()),
            zeros: Vec::with_capacity(ranges.len()),
            exact: Vec::with_capacity(ranges.len()),
        };
        for range in ranges {
            let (scale, zero, exact) = rule.parts(range);
            grid.scales.push(scale);
            grid.zeros.push(zero);
            grid.exact.push(exact);
        }
        grid
    }

    /// Gives a block the scale and the zero point that it had.
    pub fn keep(&mut self, block: usize, scale: f32, zero: f32) {
        (self.scales[block], self.zeros[block]) = (scale, zero);
        self.exact[block] = None;
    }

    fn block(&self, n: usize, k: usize) -> usize {
        n / self.rule.blocks[0] * self.count + k / self.rule.blocks[1]
    }

    /// The number of a 4-bit code from −8 to 7.
    fn number4(&self, block: usize, code: f32) -> f32 {
        let round = |value| rounded(self.rule.format, value);
        round(round(code * self.scales[block]) + self.zeros[block])
    }

    fn nearest4(&self, block: usize, value: f32) -> (u8, f32) {
        let code = match self.exact[block] {
            Some([low, step]) => {
                let round = |value| self.rule.rounded4(value);
                let steps = round(round(value - low) / step);
                steps.round_ties_even().clamp(0.0, STEPS) - 8.0
            }
            None => {
                let off = |code: &i8| (self.number4(block, f32::from(*code)) - value).abs();
                let codes = -8..8i8;
                let best = codes.min_by(|a, b| off(a).total_cmp(&off(b)));
                f32::from(best.unwrap_or(0))
            }
        };
        (code as i8 as u8, self.number4(block, code))
    }
}

impl Grid for AoGrid {
    /// Integers are signed bytes.
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let (block, rule) = (self.block(n, k), self.rule);
        let (scale, zero) = (self.scales[block], self.zeros[block]);
        let round = |value| rounded(rule.format, value);
        match rule.kind {
            Kind::Int4 | Kind::Int4Tiles => self.nearest4(block, value),
            Kind::Float8 => {
                // The library has no number where all weights are 0.
                let scaled = if scale == 0.0 { 0.0 } else { value / scale };
                let number = rule
                    .float8
                    .round(scaled, rule.float8.max())
                    .copysign(scaled);
                (rule.float8.code(number), round(number * scale))
            }
            Kind::Int8 { .. } | Kind::Intx(_) => {
                // Scales of int8 are f32, and so is all that is computed with them.
                let steps = match rule.kind {
                    Kind::Intx(_) => round(value * round(scale.recip())),
                    _ => value * scale.recip(),
                };
                let steps = if steps.is_nan() { 0.0 } else { steps };
                let [low, high] = rule.kind.range();
                let code = (steps.round_ties_even() + zero).clamp(low, high);
                (code as i8 as u8, round((code - zero) * scale))
            }
        }
    }
}

impl Rule {
    /// The scale and the zero point of a block that ranges from `low` to `high`.
    fn parts(self, [low, high]: [f32; 2]) -> (f32, f32, Option<[f32; 2]>) {
        let round = |value| rounded(self.format, value);
        match self.kind {
            Kind::Int4 => {
                let step = (high - low).max(LEAST_RANGE) / STEPS;
                let zero = low + 8.0 * step;
                (round(step), round(zero), Some([low, step]))
            }
            Kind::Int4Tiles => {
                let step = round(round(high - low) / STEPS).max(self.least_scale());
                let half = round(8.0 * step);
                let zero = round(low + half);
                (step, zero, Some([round(zero - half), step]))
            }
            Kind::Float8 => {
                let largest = high.max(-low).abs();
                (round(largest / self.float8.max()), 0.0, None)
            }
            Kind::Int8 { .. } | Kind::Intx(_) => {
                let (scale, zero) = self.integers(low.min(0.0), high.max(0.0));
                (scale, zero, None)
            }
        }
    }

    /// A number on the way to a 4-bit code: tiles are computed in the dtype of the weight.
    fn rounded4(self, value: f32) -> f32 {
        match self.kind {
            Kind::Int4Tiles => rounded(self.format, value),
            _ => value,
        }
    }

    /// The smallest normal number of the dtype.
    fn least_scale(self) -> f32 {
        match self.format {
            FloatFormat::F16 => 6.103_515_6e-5,
            _ => f32::MIN_POSITIVE,
        }
    }

    fn integers(self, low: f32, high: f32) -> (f32, f32) {
        let round = |value| rounded(self.format, value);
        let [least, most] = self.kind.range();
        let smallest = match self.kind {
            Kind::Intx(_) => self.least_scale(),
            _ => f32::EPSILON,
        };
        match self.mapping {
            Mapping::Symmetric => {
                let scale = round(high.max(-low).abs() / ((most - least) / 2.0));
                (scale.max(smallest), 0.0)
            }
            Mapping::NoClipping => {
                let scale = round(low / least).max(round(high / most));
                (scale.max(smallest), 0.0)
            }
            Mapping::Asymmetric => {
                let scale = round(round(high - low) / (most - least)).max(smallest);
                let zero = least - round(low / scale).round_ties_even();
                (scale, zero.clamp(least, most))
            }
        }
    }
}

/// A number in a format.
fn rounded(format: FloatFormat, value: f32) -> f32 {
    let mut value = [value];
    format.round(&mut value);
    value[0]
}
