//! The product with a weight that trains.

use rayon::prelude::*;

use super::packed_matmul::packed_matmul;
use crate::dense::DenseView;
use crate::gemm::{Mat, matmul};
use crate::op::{Forward, HostOp, HostView};

/// Rows of the gradient of a weight that a thread computes at once.
const BAND: usize = 128;

/// `y = x · Wᵀ`. Inputs: `x` of `[.., in_features]` and `W` of `[out_features, in_features]`.
#[derive(Debug, Clone, Copy)]
pub struct DenseMatmul;

impl HostOp for DenseMatmul {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let weight = view(inputs[1]);
        let mut shape = inputs[0].shape.to_vec();
        *shape.last_mut().expect("rank 1 or more") = inputs[1].shape[0];
        Forward::new(&shape, packed_matmul(inputs[0].data, &weight, false))
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    fn backward(
        &self,
        inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let [out, width] = [inputs[1].shape[0], inputs[1].shape[1]];
        vec![
            wants[0].then(|| packed_matmul(grad.data, &view(inputs[1]), true)),
            wants[1].then(|| {
                let mut sum = vec![0.0; out * width];
                add_outer(&mut sum, grad.data, inputs[0].data, out);
                sum
            }),
        ]
    }
}

fn view(weight: HostView) -> DenseView {
    DenseView::new(weight.data, [weight.shape[0], weight.shape[1]])
}

/// `sum += Gᵀ · X` for the rows of `grad`, each `out` long, and of `x`: the gradient of a weight
/// of `[out, in_features]`.
pub(super) fn add_outer(sum: &mut [f32], grad: &[f32], x: &[f32], out: usize) {
    let rows = grad.len() / out;
    let width = sum.len() / out;
    if rows == 0 {
        return;
    }
    let x = Mat::new(x, rows, width, width);
    sum.par_chunks_mut(BAND * width)
        .enumerate()
        .for_each(|(band, sum)| {
            let grad = Mat::new(&grad[band * BAND..], rows, sum.len() / width, out);
            matmul(sum, width, grad.t(), x, true);
        });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() {
        let inputs = [(vec![2, 3, 4], random(24, 1)), (vec![5, 4], random(20, 2))];
        check_gradients(&DenseMatmul, &inputs);
    }

    #[test]
    fn gradients_of_weights_are_outer_products() {
        let (rows, out, width) = (3, 2 * BAND + 7, 5);
        let (grad, x) = (random(rows * out, 3), random(rows * width, 4));
        let mut sum = vec![1.0; out * width];
        add_outer(&mut sum, &grad, &x, out);
        for row in 0..out {
            for col in 0..width {
                let products = (0..rows).map(|r| grad[r * out + row] * x[r * width + col]);
                let expected = 1.0 + products.sum::<f32>();
                assert!((sum[row * width + col] - expected).abs() < 1e-5);
            }
        }
    }
}
