//! The gated activation with a factor for each row.

use super::activation::Activation;
use super::gated::{slopes, values};
use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;

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
                let inputs = [&gate[place.clone()], &up[place]];
                values(self.activation, out, inputs, factors[row]);
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
                let inputs = [&gate[place.clone()], &up[place.clone()]];
                let grad = &grad.data[place];
                slopes(self.activation, [d_gate, d_up], inputs, grad, factors[row]);
            }
        });
        let [d_factors] = in_pieces([factors.len(), 1], |first, [d_factors]| {
            let mut terms = vec![0.0; width];
            for (d_factor, row) in d_factors.iter_mut().zip(first..) {
                let place = row * width..(row + 1) * width;
                let inputs = [&gate[place.clone()], &up[place.clone()]];
                values(self.activation, &mut terms, inputs, 1.0);
                let products = terms.iter().zip(&grad.data[place]);
                *d_factor = products.map(|(term, grad)| term * grad).sum();
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
