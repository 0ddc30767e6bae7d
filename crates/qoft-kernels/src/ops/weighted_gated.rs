//! The gated activation with a factor for each row.

use super::activation::Activation;
use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;
use crate::wide;

/// `y = f(gate) · up · factor` with an activation `f`. Inputs: gate and up, `[rows, width]`, and a factor
/// for each row, `[rows, 1]`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WeightedGated {
    /// What the gate goes through.
    pub activation: Activation,
}

impl WeightedGated {
    /// With what the gate goes through.
    pub fn new(activation: Activation) -> Self {
        Self { activation }
    }
}

impl HostOp for WeightedGated {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let [gate, up, factors] = [0, 1, 2].map(|index| inputs[index].data);
        let width = inputs[0].shape[1];
        let [out] = in_pieces([factors.len(), width], |first, [out]| {
            let rows = out.chunks_exact_mut(width.max(1)).zip(first..);
            for (out, row) in rows {
                let place = row * width..(row + 1) * width;
                let (gate, up, factor) = (&gate[place.clone()], &up[place], factors[row]);
                wide!({
                    for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = self.activation.value(gate) * up * factor;
                    }
                });
            }
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
        let [gate, up, factors] = [0, 1, 2].map(|index| inputs[index].data);
        let width = inputs[0].shape[1];
        let [d_gate, d_up] = in_pieces([factors.len(), width], |first, [d_gate, d_up]| {
            let out = d_gate.chunks_exact_mut(width.max(1));
            let out = out.zip(d_up.chunks_exact_mut(width.max(1)));
            for ((d_gate, d_up), row) in out.zip(first..) {
                let place = row * width..(row + 1) * width;
                let (gate, up) = (&gate[place.clone()], &up[place.clone()]);
                let (grad, factor) = (&grad.data[place], factors[row]);
                wide!({
                    let out = d_gate.iter_mut().zip(d_up.iter_mut());
                    let inputs = gate.iter().zip(up).zip(grad);
                    for ((d_gate, d_up), ((&gate, up), grad)) in out.zip(inputs) {
                        let grad = grad * factor;
                        *d_gate = grad * up * self.activation.slope(gate);
                        *d_up = grad * self.activation.value(gate);
                    }
                });
            }
        });
        let [d_factors] = in_pieces([factors.len(), 1], |first, [d_factors]| {
            let mut terms = vec![0.0; width];
            for (d_factor, row) in d_factors.iter_mut().zip(first..) {
                let place = row * width..(row + 1) * width;
                let (gate, up) = (&gate[place.clone()], &up[place.clone()]);
                let grad = &grad.data[place];
                wide!({
                    let inputs = gate.iter().zip(up).zip(grad);
                    for (term, ((&gate, up), grad)) in terms.iter_mut().zip(inputs) {
                        *term = self.activation.value(gate) * up * grad;
                    }
                });
                *d_factor = terms.iter().sum();
            }
        });
        vec![Some(d_gate), Some(d_up), Some(d_factors)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let matrix = |seed| (vec![3, 4], random(12, seed));
            let inputs = [matrix(1), matrix(2), (vec![3, 1], random(3, 3))];
            check_gradients(&WeightedGated::new(activation), &inputs);
        }
    }
}
