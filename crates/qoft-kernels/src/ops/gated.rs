//! The gated activation of the feed-forward block.

use super::activation::{Activation, of_kind};
use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;
use crate::wide;

/// `y = f(gate) · up` with an activation `f`. Inputs: gate and up, of the same shape.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Gated {
    /// What the gate goes through.
    pub activation: Activation,
}

impl Gated {
    /// With what the gate goes through.
    pub fn new(activation: Activation) -> Self {
        Self { activation }
    }
}

/// `f(gate) · up · factor`, element by element.
pub(super) fn values(f: Activation, out: &mut [f32], [gate, up]: [&[f32]; 2], factor: f32) {
    of_kind!(f, KIND => wide!({
        for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = KIND.value(gate) * up * factor;
        }
    }));
}

/// The gradients of [`values`] with respect to gate and up, from those of what comes out.
pub(super) fn slopes(
    f: Activation,
    [d_gate, d_up]: [&mut [f32]; 2],
    [gate, up]: [&[f32]; 2],
    grad: &[f32],
    factor: f32,
) {
    of_kind!(f, KIND => wide!({
        let out = d_gate.iter_mut().zip(d_up.iter_mut());
        let inputs = gate.iter().zip(up).zip(grad);
        for ((d_gate, d_up), ((&gate, up), grad)) in out.zip(inputs) {
            let grad = grad * factor;
            *d_gate = grad * up * KIND.slope(gate);
            *d_up = grad * KIND.value(gate);
        }
    }));
}

impl HostOp for Gated {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let (gate, up) = (inputs[0].data, inputs[1].data);
        let [out] = in_pieces([gate.len(), 1], |first, [out]| {
            let piece = first..first + out.len();
            values(
                self.activation,
                out,
                [&gate[piece.clone()], &up[piece]],
                1.0,
            );
        });
        Forward::new(inputs[0].shape, out)
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
        let (gate, up) = (inputs[0].data, inputs[1].data);
        let [d_gate, d_up] = in_pieces([gate.len(), 1], |first, [d_gate, d_up]| {
            let piece = first..first + d_gate.len();
            let inputs = [&gate[piece.clone()], &up[piece.clone()]];
            slopes(
                self.activation,
                [d_gate, d_up],
                inputs,
                &grad.data[piece],
                1.0,
            );
        });
        vec![Some(d_gate), Some(d_up)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() {
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::Relu] {
            check_gradients(
                &Gated::new(activation),
                &[(vec![3, 4], random(12, 1)), (vec![3, 4], random(12, 2))],
            );
        }
    }
}
