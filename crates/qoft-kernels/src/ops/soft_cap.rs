//! Soft bounds of scores and logits.

use crate::vector::sigmoid;

/// `cap · tanh(x / cap)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftCap {
    cap: f32,
}

impl SoftCap {
    /// The largest absolute value, greater than 0.
    pub fn new(cap: f32) -> Self {
        Self { cap }
    }

    /// The largest absolute value.
    pub fn cap(self) -> f32 {
        self.cap
    }

    /// The bounded value: `tanh(z) = 2·sigmoid(2z) − 1`.
    #[inline(always)]
    pub(crate) fn value(self, x: f32) -> f32 {
        self.cap * (2.0 * sigmoid(2.0 * x / self.cap) - 1.0)
    }

    /// The derivative where the bounded value is `bounded`.
    #[inline(always)]
    pub(crate) fn slope(self, bounded: f32) -> f32 {
        let tanh = bounded / self.cap;
        1.0 - tanh * tanh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_hyperbolic_tangent() {
        let cap = SoftCap::new(30.0);
        for x in [-500.0f32, -31.0, -1.5, -0.01, 0.0, 0.3, 12.0, 64.0, 1e9] {
            let expected = 30.0 * (f64::from(x) / 30.0).tanh();
            assert!((f64::from(cap.value(x)) - expected).abs() < 4e-6, "{x}");
            let slope = 1.0 - (f64::from(x) / 30.0).tanh().powi(2);
            assert!((f64::from(cap.slope(cap.value(x))) - slope).abs() < 1e-6);
        }
    }
}
