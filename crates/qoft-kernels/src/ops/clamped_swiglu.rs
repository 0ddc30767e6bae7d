//! The gated activation of neighbouring features, which are cut off.

use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;
use crate::vector::sigmoid;
use crate::wide;

/// `y = (up + 1) · gate · sigmoid(alpha · gate)` of gates cut off above `limit` and of `up` cut off at a distance
/// of `limit` from 0. Input: `[rows, 2 · width]`, a gate and what it lets through side by side. Output:
/// `[rows, width]`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ClampedSwiglu {
    /// Multiplies what the sigmoid is taken of.
    pub alpha: f32,
    /// Where values are cut off.
    pub limit: f32,
}

impl ClampedSwiglu {
    /// With a factor inside the sigmoid, and where values are cut off: a number above 0.
    pub fn new(alpha: f32, limit: f32) -> Self {
        Self { alpha, limit }
    }

    #[inline(always)]
    fn value(self, gate: f32, up: f32) -> f32 {
        let gate = gate.min(self.limit);
        let up = up.clamp(-self.limit, self.limit);
        (up + 1.0) * gate * sigmoid(self.alpha * gate)
    }

    /// By gate and up. What is cut off has none; at the limit itself it has, as in torch.
    #[inline(always)]
    fn slopes(self, gate: f32, up: f32) -> [f32; 2] {
        let inside = f32::from(gate <= self.limit);
        let up_inside = f32::from(up.abs() <= self.limit);
        let gate = gate.min(self.limit);
        let up = up.clamp(-self.limit, self.limit);
        let s = sigmoid(self.alpha * gate);
        let slope = s * (1.0 + self.alpha * gate * (1.0 - s));
        [inside * (up + 1.0) * slope, up_inside * gate * s]
    }
}

impl HostOp for ClampedSwiglu {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let x = inputs[0].data;
        let &[rows, both] = inputs[0].shape else {
            panic!("rows of gates and what they let through");
        };
        let (pairs, _) = x.as_chunks::<2>();
        let [out] = in_pieces([pairs.len(), 1], |first, [out]| {
            let pairs = &pairs[first..first + out.len()];
            wide!({
                for (out, &[gate, up]) in out.iter_mut().zip(pairs) {
                    *out = self.value(gate, up);
                }
            });
        });
        Forward::new(&[rows, both / 2], out)
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    fn cheap(&self) -> bool {
        true
    }

    fn backward(
        &self,
        inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let (pairs, _) = inputs[0].data.as_chunks::<2>();
        let [out] = in_pieces([pairs.len(), 2], |first, [out]| {
            let (out, _) = out.as_chunks_mut::<2>();
            let piece = first..first + out.len();
            let (pairs, grad) = (&pairs[piece.clone()], &grad.data[piece]);
            wide!({
                for ((out, &[gate, up]), grad) in out.iter_mut().zip(pairs).zip(grad) {
                    let [by_gate, by_up] = self.slopes(gate, up);
                    *out = [grad * by_gate, grad * by_up];
                }
            });
        });
        vec![Some(out)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() {
        // Some of the values are cut off, none within a step of the limit.
        let mut x: Vec<f32> = random(24, 1).iter().map(|v| 3.0 * v).collect();
        for v in &mut x {
            if (v.abs() - 1.25).abs() < 0.05 {
                *v += 0.2;
            }
        }
        assert!(x.iter().any(|v| v.abs() > 1.25));
        check_gradients(&ClampedSwiglu::new(1.702, 1.25), &[(vec![3, 8], x)]);
    }

    /// Values of torch 2.15, of `_apply_gate` in transformers' `GptOssExperts`.
    #[test]
    fn values_equal_torch() {
        let op = ClampedSwiglu::new(1.702, 7.0);
        for (gate, up, expected) in CASES {
            let found = op.value(gate, up);
            assert!(
                (found - expected).abs() <= 2e-7 * expected.abs().max(1.0),
                "{gate} {up}: {found}"
            );
        }
    }

    const CASES: [(f32, f32, f32); 4] = [
        (0.5, -0.25, 0.262_791_34),
        (-2.0, 1.5, -0.160_853_43),
        (9.0, 8.5, 55.999_626),
        (-8.0, -7.5, 5.859_857e-5),
    ];
}
