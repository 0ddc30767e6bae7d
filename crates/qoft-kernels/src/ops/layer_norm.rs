//! Normalization of the last dimension to a mean of 0 and a variance of 1.

use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;
use crate::vector::sum;
use crate::wide;

/// `y = (x − mean(x)) / √(var(x) + eps) · weight`. Inputs: `x` of `[.., d]` and the weight of `[d]`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// With `eps` added to the variance.
    pub fn new(eps: f32) -> Self {
        Self { eps }
    }

    /// Mean of a row, and what its distances from it are multiplied by.
    #[inline(always)]
    fn mean_and_scale(&self, x: &[f32]) -> (f32, f32) {
        let width = x.len() as f32;
        let mean = sum(x, x, |v, _| v) / width;
        let variance = sum(x, x, |v, _| (v - mean) * (v - mean)) / width;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }
}

impl HostOp for LayerNorm {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let (rows, width) = inputs[0].rows();
        let (x, weight) = (inputs[0].data, inputs[1].data);
        let [out] = in_pieces([rows, width], |first, [out]| {
            let x = x[first * width..].chunks_exact(width);
            wide!({
                for (out, x) in out.chunks_exact_mut(width).zip(x) {
                    let (mean, scale) = self.mean_and_scale(x);
                    for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                        *out = (x - mean) * scale * w;
                    }
                }
            });
        });
        Forward::new(inputs[0].shape, out)
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    /// With `n = (x − mean)·s` and `g = grad·weight`: `dx = s·(g − mean(g) − n·mean(g·n))`.
    fn backward(
        &self,
        inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let (rows, width) = inputs[0].rows();
        let (x, weight) = (inputs[0].data, inputs[1].data);
        vec![
            wants[0].then(|| {
                let [out] = in_pieces([rows, width], |first, [out]| {
                    let x = x[first * width..].chunks_exact(width);
                    let rows = x.zip(grad.data[first * width..].chunks_exact(width));
                    wide!({
                        for (out, (x, grad)) in out.chunks_exact_mut(width).zip(rows) {
                            self.row_gradient(out, x, grad, weight);
                        }
                    });
                });
                out
            }),
            wants[1].then(|| {
                let mut out = vec![0.0; width];
                for (x, grad) in x.chunks_exact(width).zip(grad.data.chunks_exact(width)) {
                    let (mean, scale) = wide!(self.mean_and_scale(x));
                    for ((out, x), grad) in out.iter_mut().zip(x).zip(grad) {
                        *out += grad * (x - mean) * scale;
                    }
                }
                out
            }),
        ]
    }
}

impl LayerNorm {
    #[inline(always)]
    fn row_gradient(&self, out: &mut [f32], x: &[f32], grad: &[f32], weight: &[f32]) {
        let (mean, scale) = self.mean_and_scale(x);
        for ((out, grad), w) in out.iter_mut().zip(grad).zip(weight) {
            *out = grad * w;
        }
        let width = x.len() as f32;
        let along = sum(out, x, |g, _| g) / width;
        let pull = sum(out, x, |g, x| g * (x - mean) * scale) / width;
        for (out, x) in out.iter_mut().zip(x) {
            *out = scale * (*out - along - (x - mean) * scale * pull);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() {
        let inputs = [(vec![4, 6], random(24, 1)), (vec![6], random(6, 2))];
        check_gradients(&LayerNorm { eps: 1e-3 }, &inputs);
    }

    #[test]
    fn rows_get_a_mean_of_zero_and_a_variance_of_one() {
        let (shape, x) = ([1, 4], [3.0, -4.0, 5.0, 1.0]);
        let inputs = [HostView::new(&shape, &x), HostView::new(&[4], &[1.0; 4])];
        let y = LayerNorm { eps: 0.0 }.forward(&inputs, false).data;
        let square: f32 = y.iter().map(|v| v * v).sum::<f32>() / 4.0;
        assert!(y.iter().sum::<f32>().abs() < 1e-6);
        assert!((square - 1.0).abs() < 1e-6);
    }
}
