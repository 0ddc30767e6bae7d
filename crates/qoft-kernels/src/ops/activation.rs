//! Activations that see one element at a time.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;
use crate::vector::sigmoid;
use crate::wide;

/// `y = f(x)`, element by element. Input: `x` of any shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x · Φ(x)` with the normal distribution Φ.
    Gelu,
    /// [`Self::Gelu`] with a hyperbolic tangent in place of Φ.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

/// Runs a loop over elements with the activation as a constant, `KIND`: the compiler turns loops
/// into vectors only where nothing is decided for each element.
macro_rules! of_kind {
    ($activation:expr, $kind:ident => $body:expr) => {
        of_kind!(@ $activation, $kind => $body, Gelu GeluTanh Relu Silu Tanh)
    };
    (@ $activation:expr, $kind:ident => $body:expr, $($variant:ident)*) => {
        match $activation {
            $($crate::ops::Activation::$variant => {
                const $kind: $crate::ops::Activation = $crate::ops::Activation::$variant;
                $body
            })*
        }
    };
}
pub(super) use of_kind;

impl Activation {
    #[inline(always)]
    pub(super) fn value(self, x: f32) -> f32 {
        match self {
            Self::Gelu => x * normal(x),
            Self::GeluTanh => x * sigmoid(inner(x)),
            Self::Relu => x.max(0.0),
            Self::Silu => x * sigmoid(x),
            Self::Tanh => x.tanh(),
        }
    }

    #[inline(always)]
    pub(super) fn slope(self, x: f32) -> f32 {
        match self {
            Self::Gelu => normal(x) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
            Self::GeluTanh => {
                let s = sigmoid(inner(x));
                let inner_slope = 2.0 * ROOT * (1.0 + 3.0 * CUBIC * x * x);
                s + x * s * (1.0 - s) * inner_slope
            }
            Self::Relu => f32::from(x > 0.0),
            Self::Silu => {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Self::Tanh => 1.0 - x.tanh().powi(2),
        }
    }
}

/// `√(2/π)`.
const ROOT: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// What the sigmoid of [`Activation::GeluTanh`] is taken of: `(1 + tanh(z)) / 2 = sigmoid(2z)`.
#[inline(always)]
fn inner(x: f32) -> f32 {
    2.0 * ROOT * (x + CUBIC * x * x * x)
}

/// The normal distribution.
fn normal(x: f32) -> f32 {
    0.5 * (1.0 + libm::erff(x * FRAC_1_SQRT_2))
}

impl HostOp for Activation {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let x = inputs[0].data;
        let [out] = in_pieces([x.len(), 1], |first, [out]| {
            let x = &x[first..first + out.len()];
            of_kind!(*self, KIND => wide!({
                for (out, &x) in out.iter_mut().zip(x) {
                    *out = KIND.value(x);
                }
            }));
        });
        Forward::new(inputs[0].shape, out)
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    fn backward(
        &self,
        inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let (x, grad) = (inputs[0].data, grad.data);
        let [out] = in_pieces([x.len(), 1], |first, [out]| {
            let piece = first..first + out.len();
            let (x, grad) = (&x[piece.clone()], &grad[piece]);
            of_kind!(*self, KIND => wide!({
                for ((out, &x), grad) in out.iter_mut().zip(x).zip(grad) {
                    *out = grad * KIND.slope(x);
                }
            }));
        });
        vec![Some(out)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    const ALL: [Activation; 5] = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Silu,
        Activation::Tanh,
    ];

    #[test]
    fn gradients_equal_finite_differences() {
        for activation in ALL {
            check_gradients(&activation, &[(vec![3, 4], random(12, 1))]);
        }
    }

    /// Values of torch 2.15: `gelu(x)`, `gelu(x, approximate="tanh")`, `silu(x)`.
    #[test]
    fn values_equal_torch() {
        let cases = [
            (-2.5, -0.015_524_179, -0.015_084_296, -0.189_645_45),
            (-0.5, -0.154_268_77, -0.154_285_98, -0.188_770_34),
            (1.25, 1.117_937_8, 1.117_714_2, 0.971_624_85),
        ];
        for (x, gelu, tanh, silu) in cases {
            let near = |a: f32, b: f32| assert!((a - b).abs() < 3e-7, "{x}: {a} {b}");
            near(Activation::Gelu.value(x), gelu);
            near(Activation::GeluTanh.value(x), tanh);
            near(Activation::Silu.value(x), silu);
        }
    }

    #[test]
    fn large_inputs_stay_finite() {
        for activation in ALL {
            for x in [-1e4_f32, -100.0, 100.0, 1e4] {
                let (value, slope) = (activation.value(x), activation.slope(x));
                assert!(value.is_finite() && slope.is_finite(), "{activation:?} {x}");
            }
        }
    }
}
