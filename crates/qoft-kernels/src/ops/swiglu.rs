//! The gated activation of the feed-forward block.

use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;
use crate::vector::sigmoid;
use crate::wide;

/// `y = silu(gate) · up`. Inputs: gate and up, of the same shape.
#[derive(Debug, Clone, Copy)]
pub struct SwiGlu;

impl HostOp for SwiGlu {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let (gate, up) = (inputs[0].data, inputs[1].data);
        let [out] = in_pieces([gate.len(), 1], |first, [out]| {
            let piece = first..first + out.len();
            let (gate, up) = (&gate[piece.clone()], &up[piece]);
            wide!({
                for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
                    *out = gate * sigmoid(gate) * up;
                }
            });
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
            wide!({
                let out = d_gate.iter_mut().zip(d_up.iter_mut());
                let inputs = gate.iter().zip(up).zip(grad);
                for ((d_gate, d_up), ((&gate, up), grad)) in out.zip(inputs) {
                    let s = sigmoid(gate);
                    *d_gate = grad * up * s * (1.0 + gate * (1.0 - s));
                    *d_up = grad * gate * s;
                }
            });
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
        check_gradients(
            &SwiGlu,
            &[(vec![3, 4], random(12, 1)), (vec![3, 4], random(12, 2))],
        );
    }
}
