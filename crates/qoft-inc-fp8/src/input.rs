//! Rounding of inputs to 8-bit floats.

use qoft_scheme::kernels::ops::InputQuantizer;
use qoft_scheme::kernels::{FloatFormat, Fp8Format};

/// One over the scale of the input.
pub const SCALE_INV: &str = "quant_input.scale_inv";

/// A fixed scale for all inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct StaticInput {
    /// The numbers.
    pub format: Fp8Format,
    /// Larger numbers are clamped.
    pub max: f32,
    /// What a number is multiplied with in the end.
    pub scale: f32,
    /// How it is computed.
    pub steps: StaticSteps,
}

/// The steps of a [`StaticInput`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum StaticSteps {
    /// As a Gaudi does: the input is multiplied with one over the scale, which was rounded.
    Gaudi {
        /// One over the scale.
        scale_inv: f32,
    },
    /// The QDQ mode: the input is divided by the scale, and the result is rounded.
    Qdq {
        /// What the result is rounded to.
        rounding: FloatFormat,
    },
}

impl InputQuantizer for StaticInput {
    fn quantize(&self, x: &mut [f32], _in_features: usize) {
        let (format, max, scale) = (self.format, self.max, self.scale);
        match self.steps {
            StaticSteps::Gaudi { scale_inv } => {
                for v in x {
                    *v = format.round(*v * scale_inv, max) * scale;
                }
            }
            StaticSteps::Qdq { rounding } => {
                for v in x.iter_mut() {
                    *v = format.round(*v / scale, max) * scale;
                }
                rounding.round(x);
            }
        }
    }
}

/// A scale that follows the input's largest magnitude.
///
/// With one scale for all rows a result depends on what else is in the batch, as in the library.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct DynamicInput {
    /// The numbers.
    pub format: Fp8Format,
    /// The largest number.
    pub max: f32,
    /// Each row has a scale of its own.
    pub per_row: bool,
    /// Scales are powers of two.
    pub power_of_two: bool,
    /// The dtype in which scales are computed.
    pub rounding: FloatFormat,
}

impl DynamicInput {
    /// The scale for numbers up to `largest`: half of the range stays free.
    fn scale(&self, largest: f32) -> f32 {
        let round = |v: f32| {
            let mut v = [v];
            self.rounding.round(&mut v);
            v[0]
        };
        let scale = round(round(largest) / (self.max * 0.5));
        // The library has this bound for scales of rows only.
        let scale = if self.per_row {
            scale.max(f32::MIN_POSITIVE)
        } else {
            scale
        };
        if self.power_of_two {
            round(scale.log2()).ceil().exp2()
        } else {
            scale
        }
    }
}

impl InputQuantizer for DynamicInput {
    fn quantize(&self, x: &mut [f32], in_features: usize) {
        let together = if self.per_row {
            in_features
        } else {
            x.len().max(1)
        };
        for x in x.chunks_mut(together) {
            let largest = x.iter().fold(0.0f32, |max, v| max.max(v.abs()));
            let scale = self.scale(largest);
            let mut scale_inv = [scale.recip()];
            self.rounding.round(&mut scale_inv);
            // So small a scale has no inverse; zeros stay what they are.
            if !scale_inv[0].is_finite() {
                continue;
            }
            let steps = StaticSteps::Gaudi {
                scale_inv: scale_inv[0],
            };
            let quantizer = StaticInput {
                format: self.format,
                max: self.max,
                scale,
                steps,
            };
            quantizer.quantize(x, in_features);
        }
    }
}
