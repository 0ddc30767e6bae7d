//! The gated activation of the feed-forward block.

use rayon::prelude::*;

use crate::op::{Forward, HostOp, HostView};
use crate::simd::arch;
use crate::vector::sigmoid;

/// `y = silu(gate) · up`. Inputs: gate and up, of the same shape.
#[derive(Debug, Clone, Copy)]
pub struct SwiGlu;

/// Elements that one task handles.
const CHUNK: usize = 1 << 14;

impl HostOp for SwiGlu {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let (gate, up) = (inputs[0].data, inputs[1].data);
        let mut out = vec![0.0; gate.len()];
        out.par_chunks_mut(CHUNK)
            .zip(gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)))
            .for_each(|(out, (gate, up))| {
                arch().dispatch(|| {
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

    fn activation(&self, _index: usize) -> bool {
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
        let (mut d_gate, mut d_up) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
        d_gate
            .par_chunks_mut(CHUNK)
            .zip(d_up.par_chunks_mut(CHUNK))
            .zip(gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)))
            .zip(grad.data.par_chunks(CHUNK))
            .for_each(|(((d_gate, d_up), (gate, up)), grad)| {
                arch().dispatch(|| {
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
