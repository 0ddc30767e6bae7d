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

impl HostOp for Gated {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let (gate, up) = (inputs[0].data, inputs[1].data);
        let [out] = in_pieces([gate.len(), 1], |first, [out]| {
            let piece = first..first + out.len();
            let (gate, up) = (&gate[piece.clone()], &up[piece]);
            of_kind!(self.activation, KIND => wide!({
                for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
                    *out = KIND.value(gate) * up;
                }
            }));
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
            let (gate, up) = (&gate[piece.clone()], &up[piece.clone()]);
            let grad = &grad.data[piece];
            of_kind!(self.activation, KIND => wide!({
                let out = d_gate.iter_mut().zip(d_up.iter_mut());
                let inputs = gate.iter().zip(up).zip(grad);
                for ((d_gate, d_up), ((&gate, up), grad)) in out.zip(inputs) {
                    *d_gate = grad * up * KIND.slope(gate);
                    *d_up = grad * KIND.value(gate);
                }
            }));
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
