//! Normalization of the last dimension to a mean of 0 and a variance of 1.

use rayon::prelude::*;

use crate::op::{Forward, HostOp, HostView};

/// `y = (x − mean(x)) / √(var(x) + eps) · weight`. Inputs: `x` of `[.., d]` and the weight of `[d]`.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Mean of a row, and what its distances from it are multiplied by.
    fn mean_and_scale(&self, x: &[f32]) -> (f32, f32) {
        let width = x.len() as f32;
        let mean = x.iter().sum::<f32>() / width;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / width;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }
}

impl HostOp for LayerNorm {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let (_, width) = inputs[0].rows();
        let (x, weight) = (inputs[0].data, inputs[1].data);
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(width)
            .zip(x.par_chunks(width))
            .for_each(|(out, x)| {
                let (mean, scale) = self.mean_and_scale(x);
                for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                    *out = (x - mean) * scale * w;
                }
            });
        Forward::new(inputs[0].shape, out)
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    fn activation(&self, index: usize) -> bool {
        index == 0
    }

    /// With `n = (x − mean)·s` and `g = grad·weight`: `dx = s·(g − mean(g) − n·mean(g·n))`.
    fn backward(
        &self,
        inputs: &[HostView],
        _saved: &[f32],
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
                    .for_each(|(out, (x, grad))| self.row_gradient(out, x, grad, weight));
                out
            }),
            wants[1].then(|| {
                let mut out = vec![0.0; width];
                for (x, grad) in x.chunks_exact(width).zip(grad.data.chunks_exact(width)) {
                    let (mean, scale) = self.mean_and_scale(x);
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
    fn row_gradient(&self, out: &mut [f32], x: &[f32], grad: &[f32], weight: &[f32]) {
        let (mean, scale) = self.mean_and_scale(x);
        let (mut sum, mut dot) = (0.0, 0.0);
        for ((x, grad), w) in x.iter().zip(grad).zip(weight) {
            sum += grad * w;
            dot += grad * w * (x - mean) * scale;
        }
        let width = x.len() as f32;
        let (sum, dot) = (sum / width, dot / width);
        for (((out, x), grad), w) in out.iter_mut().zip(x).zip(grad).zip(weight) {
            *out = scale * (grad * w - sum - (x - mean) * scale * dot);
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
