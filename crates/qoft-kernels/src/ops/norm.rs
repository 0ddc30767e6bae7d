//! Root-mean-square normalization of the last dimension.

use rayon::prelude::*;

use crate::op::{Forward, HostOp, HostView};
use crate::simd::arch;
use crate::vector::dot;

/// `y = x / √(mean(x²) + eps) · weight`. Inputs: `x` of `[.., d]` and the weight of `[d]`.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f32,
}

impl HostOp for RmsNorm {
    fn forward(&self, inputs: &[HostView], keep: bool) -> Forward {
        let (rows, width) = inputs[0].rows();
        let weight = inputs[1].data;
        let mut out = vec![0.0; inputs[0].data.len()];
        let mut scales = vec![0.0; rows];
        out.par_chunks_mut(width)
            .zip(inputs[0].data.par_chunks(width))
            .zip(&mut scales)
            .for_each(|((out, x), scale)| {
                let square = arch().dispatch(|| dot(x, x)) / width as f32;
                *scale = 1.0 / (square + self.eps).sqrt();
                for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                    *out = x * *scale * w;
                }
            });
        let saved = if keep { scales } else { Vec::new() };
        Forward {
            shape: inputs[0].shape.to_vec(),
            data: out,
            saved,
        }
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    fn activation(&self, index: usize) -> bool {
        index == 0
    }

    fn cheap(&self) -> bool {
        true
    }

    fn backward(
        &self,
        inputs: &[HostView],
        saved: &[f32],
        grad: HostView,
        wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let (_, width) = inputs[0].rows();
        let (x, weight) = (inputs[0].data, inputs[1].data);
        vec![
            wants[0].then(|| {
                let mut out = vec![0.0; x.len()];
                out.par_chunks_mut(width)
                    .zip(x.par_chunks(width).zip(grad.data.par_chunks(width)))
                    .zip(saved)
                    .for_each(|((out, (x, grad)), &scale)| {
                        row_gradient(out, x, grad, weight, scale);
                    });
                out
            }),
            wants[1].then(|| {
                let mut out = vec![0.0; width];
                let rows = x.chunks_exact(width).zip(grad.data.chunks_exact(width));
                for ((x, grad), scale) in rows.zip(saved) {
                    for ((out, x), grad) in out.iter_mut().zip(x).zip(grad) {
                        *out += grad * x * scale;
                    }
                }
                out
            }),
        ]
    }
}

/// `dx = s·(g − x·s²·mean(g·x))` with `g = grad·weight` and `s` the row's scale.
fn row_gradient(out: &mut [f32], x: &[f32], grad: &[f32], weight: &[f32], scale: f32) {
    for ((out, grad), w) in out.iter_mut().zip(grad).zip(weight) {
        *out = grad * w;
    }
    arch().dispatch(|| {
        let pull = dot(x, out) / x.len() as f32 * scale * scale;
        for (out, x) in out.iter_mut().zip(x) {
            *out = scale * (*out - x * pull);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() {
        let inputs = [(vec![4, 6], random(24, 1)), (vec![6], random(6, 2))];
        check_gradients(&RmsNorm { eps: 1e-3 }, &inputs);
    }

    #[test]
    fn rows_get_a_mean_square_of_one() {
        let (shape, x) = ([1, 3], [3.0, -4.0, 5.0]);
        let inputs = [HostView::new(&shape, &x), HostView::new(&[3], &[1.0; 3])];
        let y = RmsNorm { eps: 0.0 }.forward(&inputs, false).data;
        let square: f32 = y.iter().map(|v| v * v).sum::<f32>() / 3.0;
        assert!((square - 1.0).abs() < 1e-6);
    }
}
