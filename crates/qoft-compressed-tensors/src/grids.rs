//! Scales as the library chooses them, and the numbers that they lead to.

use qoft_scheme::Grid;
use qoft_scheme::kernels::{
    FP4, FloatFormat, Matrix, block_ranges, fp4_code, power_code, powers_of_two,
};

use crate::floats::{FP8, ScaleKind, over};

/// The largest 4-bit number.
const FP4_MAX: f32 = 6.0;
/// The scale of blocks of zeros, where scales are 8-bit floats.
const FP8_LEAST: f32 = 0.125;

/// A number in a format.
fn rounded(format: FloatFormat, value: f32) -> f32 {
    let mut value = [value];
    format.round(&mut value);
    value[0]
}

/// A place in a matrix of blocks.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    sizes: [usize; 2],
    /// Blocks beside each other.
    count: usize,
}

impl Blocks {
    fn new(sizes: [usize; 2], [_, k]: [usize; 2]) -> Self {
        let count = k.div_ceil(sizes[1]);
        Self { sizes, count }
    }

    fn of(self, n: usize, k: usize) -> usize {
        n / self.sizes[0] * self.count + k / self.sizes[1]
    }
}

/// Integers with a scale and a zero point for each block, computed in the dtype of the scales, step
/// by step.
pub struct IntegerBlocks {
    blocks: Blocks,
    format: FloatFormat,
    /// The smallest and the largest code.
    range: [f32; 2],
    /// The scales.
    pub scales: Vec<f32>,
    /// The zero points.
    pub zeros: Vec<f32>,
}

impl IntegerBlocks {
    /// Scales and zero points from the smallest and the largest weight of each block.
    pub fn new(
        weight: &Matrix,
        sizes: [usize; 2],
        bits: usize,
        symmetric: bool,
        format: FloatFormat,
    ) -> Self {
        let half = (1u32 << (bits - 1)) as f32;
        let [low, high] = [-half, half - 1.0];
        let round = |value| rounded(format, value);
        let ranges = block_ranges(weight, sizes);
        let parts = ranges.iter().map(|range| {
            let (min, max) = (range[0].min(0.0), range[1].max(0.0));
            let nonzero = |scale: f32| {
                if scale == 0.0 {
                    format.epsilon()
                } else {
                    scale
                }
            };
            if symmetric {
                return (nonzero(round(max.max(-min) / ((high - low) / 2.0))), 0.0);
            }
            let scale = round(round(max - min) / (high - low));
            // Divided by 0 where all weights are 0, which is no number, and counts as the lowest.
            let zero = round(low - round(min / scale));
            let zero = if zero.is_nan() { 0.0 } else { zero };
            (nonzero(scale), zero.clamp(low, high).round_ties_even())
        });
        let (scales, zeros) = parts.unzip();
        Self {
            blocks: Blocks::new(sizes, weight.shape),
            format,
            range: [low, high],
            scales,
            zeros,
        }
    }

    /// Gives a block another scale and zero point.
    pub fn set(&mut self, block: usize, scale: f32, zero: f32) {
        (self.scales[block], self.zeros[block]) = (scale, zero);
    }
}

impl Grid for IntegerBlocks {
    /// Codes are those of the words: none is negative.
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let block = self.blocks.of(n, k);
        let (scale, zero) = (self.scales[block], self.zeros[block]);
        let round = |value| rounded(self.format, value);
        let [low, high] = self.range;
        let steps = round(round(value / scale) + zero);
        let code = if steps.is_nan() { zero } else { steps };
        let code = code.clamp(low, high).round_ties_even();
        ((code - low) as u8, round((code - zero) * scale))
    }
}

/// Floats of 8 or 4 bits with a scale for each block.
pub struct FloatBlocks {
    blocks: Blocks,
    packed: bool,
    kind: ScaleKind,
    /// What quotients are rounded to.
    quotients: FloatFormat,
    /// The scales as they are stored.
    stored: Vec<f32>,
    /// What codes are multiplied with.
    scales: Vec<f32>,
}

impl FloatBlocks {
    /// Scales from the largest weight of each block, for weights of dtype `format`.
    pub fn new(
        weight: &Matrix,
        sizes: [usize; 2],
        kind: ScaleKind,
        packed: bool,
        format: FloatFormat,
    ) -> Self {
        let ranges = block_ranges(weight, sizes);
        // The larger of two zeros may be the negative one.
        let largest = ranges.iter().map(|[low, high]| high.max(-low).abs());
        let stored: Vec<f32> = match kind {
            ScaleKind::Floats(format) => largest
                .map(|a| match rounded(format, a / FP8.max()) {
                    0.0 => format.epsilon(),
                    scale => scale,
                })
                .collect(),
            ScaleKind::Powers => largest.map(|a| power(a, packed)).collect(),
            ScaleKind::Fp8Over(global) => largest
                .map(|a| global * rounded(format, a / FP4_MAX))
                .map(|scale| match FP8.round(scale, FP8.max()) {
                    0.0 => FP8_LEAST,
                    scale => scale,
                })
                .collect(),
        };
        let mut grid = Self {
            blocks: Blocks::new(sizes, weight.shape),
            packed,
            kind,
            quotients: match kind {
                ScaleKind::Floats(format) => format,
                _ => FloatFormat::F32,
            },
            scales: vec![0.0; stored.len()],
            stored,
        };
        for block in 0..grid.stored.len() {
            grid.set(block, grid.stored[block]);
        }
        grid
    }

    /// Gives a block another scale, as it is stored.
    pub fn set(&mut self, block: usize, stored: f32) {
        self.stored[block] = stored;
        self.scales[block] = match self.kind {
            ScaleKind::Fp8Over(global) => stored / global,
            _ => stored,
        };
    }

    /// The bytes of the scales.
    pub fn scale_bytes(&self) -> Vec<u8> {
        match self.kind {
            ScaleKind::Floats(format) => format.to_bytes(&self.stored),
            ScaleKind::Powers => self.stored.iter().map(|&scale| power_code(scale)).collect(),
            ScaleKind::Fp8Over(_) => self.stored.iter().map(|&scale| FP8.code(scale)).collect(),
        }
    }

    /// What products are rounded to.
    fn rounding(&self) -> FloatFormat {
        match self.kind {
            ScaleKind::Floats(format) => format,
            _ => FloatFormat::Bf16,
        }
    }
}

impl Grid for FloatBlocks {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let scale = self.scales[self.blocks.of(n, k)];
        let quotient = match rounded(self.quotients, value / scale) {
            // Weights and a scale that are both too small.
            quotient if quotient.is_nan() => 0.0,
            quotient => quotient,
        };
        let (code, number) = match self.packed {
            true => {
                let code = fp4_code(quotient);
                (code, FP4[usize::from(code)])
            }
            false => {
                let number = FP8.round(quotient, FP8.max());
                (FP8.code(number), number)
            }
        };
        (code, rounded(self.rounding(), number * scale))
    }
}

/// The power of two that brings `largest` below the largest number, as the library finds it: one
/// that rounding would not take beyond that.
fn power(largest: f32, packed: bool) -> f32 {
    // Exponents of the largest 4-bit and 8-bit numbers.
    let most = if packed { 2 } else { 8 };
    let bits = largest.to_bits();
    let up = i32::from(bits & 0x7f_ffff >= 0x60_0000);
    let exponent = (bits >> 23) as i32 + up - most;
    // The last byte is no number.
    powers_of_two()[exponent.clamp(0, 254) as usize]
}

/// The number that the scales of a weight are multiplied with before they are rounded to 8 bits, so
/// that the largest becomes the largest of these numbers.
pub fn global_scale(weight: &Matrix, format: FloatFormat) -> f32 {
    let ranges = block_ranges(weight, [usize::MAX; 2]);
    let largest = ranges
        .iter()
        .fold(0.0f32, |max, [low, high]| max.max(-low).max(*high));
    // How PyTorch divides a number by a tensor.
    let scale = rounded(
        format,
        rounded(format, largest.recip()) * (FP8.max() * FP4_MAX),
    );
    match scale.is_finite() {
        true => scale,
        false => 1.0,
    }
}

/// The scales of 8 bits as they are stored, or exponents as powers.
pub fn stored_scales(bytes: &[u8], kind: ScaleKind) -> Option<Vec<f32>> {
    let table = match kind {
        ScaleKind::Floats(_) => return None,
        ScaleKind::Powers => powers_of_two(),
        ScaleKind::Fp8Over(_) => over(1.0),
    };
    Some(bytes.iter().map(|&byte| table[usize::from(byte)]).collect())
}
