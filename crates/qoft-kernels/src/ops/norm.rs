//! Root-mean-square normalization of the last dimension.

use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;
use crate::vector::dot;
use crate::wide;

/// `y = x / √(mean(x²) + eps) · weight`. Inputs: `x` of `[.., d]` and the weight of `[d]`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f32,
}

impl RmsNorm {
    /// With `eps` added to the mean square.
    pub fn new(eps: f32) -> Self {
        Self { eps }
    }

    /// What a row is multiplied by.
    #[inline(always)]
    fn scale(&self, x: &[f32]) -> f32 {
        1.0 / (dot(x, x) / x.len() as f32 + self.eps).sqrt()
    }
}

impl HostOp for RmsNorm {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let (rows, width) = inputs[0].rows();
        let (x, weight) = (inputs[0].data, inputs[1].data);
        let [out] = in_pieces([rows, width], |first, [out]| {
            let x = x[first * width..].chunks_exact(width);
            wide!({
                for (out, x) in out.chunks_exact_mut(width).zip(x) {
                    let scale = self.scale(x);
                    for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                        *out = x * scale * w;
                    }
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
                            row_gradient(out, x, grad, weight, self.scale(x));
                        }
                    });
                });
                out
            }),
            wants[1].then(|| {
                let mut out = vec![0.0; width];
                for (x, grad) in x.chunks_exact(width).zip(grad.data.chunks_exact(width)) {
                    let scale = wide!(self.scale(x));
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
#[inline(always)]
fn row_gradient(out: &mut [f32], x: &[f32], grad: &[f32], weight: &[f32], scale: f32) {
    for ((out, grad), w) in out.iter_mut().zip(grad).zip(weight) {
        *out = grad * w;
    }
    let pull = dot(x, out) / x.len() as f32 * scale * scale;
    for (out, x) in out.iter_mut().zip(x) {
        *out = scale * (*out - x * pull);
    }
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
