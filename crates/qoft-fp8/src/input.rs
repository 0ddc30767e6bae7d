//! Rounding of inputs to 8-bit floats, as kernels of GPUs do it.

use qoft_scheme::kernels::Fp8Format;
use qoft_scheme::kernels::ops::InputQuantizer;

/// The numbers.
const FORMAT: Fp8Format = Fp8Format::E4m3;

/// A fixed scale for all inputs: `e4m3(x / scale) · scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StaticInput {
    /// Positive and finite.
    pub scale: f32,
}

impl InputQuantizer for StaticInput {
    fn quantize(&self, x: &mut [f32], _in_features: usize) {
        round(x, self.scale);
    }
}

/// The scale makes the largest value of some neighbouring features of a token the largest number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicInput {
    /// Features that share a scale; [`usize::MAX`]: all of a token.
    pub size: usize,
    /// Larger values count as this one, and are clamped.
    pub bound: Option<f32>,
}

impl InputQuantizer for DynamicInput {
    fn quantize(&self, x: &mut [f32], in_features: usize) {
        for row in x.chunks_exact_mut(in_features) {
            for group in row.chunks_mut(self.size) {
                let largest = group.iter().fold(0.0f32, |max, v| max.max(v.abs()));
                let largest = self.bound.map_or(largest, |bound| largest.min(bound));
                let scale = largest / FORMAT.max();
                // Where the scale is no number any more, nothing is left to be told apart.
                if scale > 0.0 {
                    round(group, scale);
                } else {
                    group.fill(0.0);
                }
            }
        }
    }
}

fn round(x: &mut [f32], scale: f32) {
    for v in x {
        *v = FORMAT.round(*v / scale, FORMAT.max()) * scale;
    }
}
