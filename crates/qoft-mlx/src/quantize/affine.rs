//! Scales and offsets of integers.

use qoft_scheme::kernels::{FloatFormat, Matrix};
use qoft_scheme::{Grid, KeptBlocks, Result};

use super::{groups, stored};

/// The smallest scale.
const LEAST: f32 = 1e-7;

/// The numbers that weights can be. Codes are chosen with scales and offsets in f32, before both are
/// rounded to the dtype in which they are stored.
pub struct AffineGrid {
    /// Input features that share a scale.
    pub group_size: usize,
    /// Groups in a row.
    pub count: usize,
    /// The largest code.
    pub largest: f32,
    /// The scales that codes are chosen with.
    pub scales: Vec<f32>,
    /// The offsets that codes are chosen with.
    pub biases: Vec<f32>,
    /// The scales that readers find.
    pub stored_scales: Vec<f32>,
    /// The offsets that readers find.
    pub stored_biases: Vec<f32>,
    /// The dtype of both, in which readers compute.
    pub format: FloatFormat,
}

impl AffineGrid {
    /// As the library chooses them: zero and the end of the range that is farther from it are numbers
    /// of the grid. Where that end is the largest weight, the scale is negative.
    ///
    /// # Errors
    /// If one is not finite in `format`.
    pub fn new(weight: &Matrix, group_size: usize, bits: u32, format: FloatFormat) -> Result<Self> {
        let largest = ((1u32 << bits) - 1) as f32;
        let found = groups(weight, group_size).map(|group| Self::group(group, largest));
        let (scales, biases): (Vec<f32>, Vec<f32>) = found.unzip();
        Ok(Self {
            group_size,
            count: weight.shape[1] / group_size,
            largest,
            stored_scales: stored(&scales, format)?,
            stored_biases: stored(&biases, format)?,
            scales,
            biases,
            format,
        })
    }

    /// The scale and the offset of a group.
    fn group(weights: &[f32], largest: f32) -> (f32, f32) {
        let low = weights.iter().fold(f32::INFINITY, |low, v| low.min(*v));
        let high = weights
            .iter()
            .fold(f32::NEG_INFINITY, |high, v| high.max(*v));
        let scale = ((high - low) / largest).max(LEAST);
        // Two numbers cannot include zero.
        if largest == 1.0 {
            return (scale, low);
        }
        let (scale, edge) = match low.abs() > high.abs() {
            true => (scale, low),
            false => (-scale, high),
        };
        match (edge / scale).round_ties_even() {
            0.0 => (scale, 0.0),
            steps => (edge / steps, edge),
        }
    }

    /// Gives the groups that stay the scales and offsets that they have in a file.
    pub fn keep(&mut self, kept: &KeptBlocks, scales: &[f32], biases: &[f32]) {
        for group in kept.iter() {
            (self.scales[group], self.biases[group]) = (scales[group], biases[group]);
            (self.stored_scales[group], self.stored_biases[group]) = (scales[group], biases[group]);
        }
    }

    fn rounded(&self, value: f32) -> f32 {
        let mut value = [value];
        self.format.round(&mut value);
        value[0]
    }
}

impl Grid for AffineGrid {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let group = n * self.count + k / self.group_size;
        let code = (value - self.biases[group]) / self.scales[group];
        // Without any scale, no code says more than the offset.
        let code = code.round_ties_even().max(0.0).min(self.largest);
        let scaled = self.rounded(code * self.stored_scales[group]);
        (code as u8, self.rounded(scaled + self.stored_biases[group]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_has_the_ends_of_the_range() {
        // What mlx 0.32.4 makes of such a group on a CPU.
        let weights = [-0.0683, 0.0926, 0.01, 0.02];
        let (scale, bias) = AffineGrid::group(&weights, 1.0);
        assert_eq!((scale, bias), (0.0926 - -0.0683, -0.0683));
    }

    #[test]
    fn the_farther_end_and_zero_are_numbers() {
        let weights = [-0.3, 0.9, 0.1, 0.2];
        let (scale, bias) = AffineGrid::group(&weights, 15.0);
        assert!(scale < 0.0);
        assert_eq!(bias, 0.9);
        assert_eq!((bias / scale).fract(), 0.0);
    }
}
