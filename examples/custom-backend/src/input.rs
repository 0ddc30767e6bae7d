//! Rounding of inputs to 8-bit integers.

use qoft_core::kernels::ops::InputQuantizer;

/// Tokens whose values are all smaller count as if one had this size.
const LEAST: f32 = 1e-5;

/// Each token has a scale of its own, which makes its largest value 127.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenInt8;

impl InputQuantizer for TokenInt8 {
    fn quantize(&self, x: &mut [f32], in_features: usize) {
        for token in x.chunks_exact_mut(in_features) {
            let largest = token.iter().fold(LEAST, |max, v| max.max(v.abs()));
            let scale = 127.0 / largest;
            for v in token {
                *v = (*v * scale).round_ties_even().clamp(-128.0, 127.0) / scale;
            }
        }
    }
}
