//! Rotary position embedding.

use std::sync::Arc;

use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;

/// Turns the first features of each head by an angle that grows with the position.
///
/// Input: `[batch, time, heads, head_dim]`. Feature `i` is paired with feature
/// `i + width` of the rotated part ("half rotation", as by transformers' `rotate_half`).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rope {
    /// Cosines, `[time, width]`, width being half the rotated features.
    pub cos: Arc<Vec<f32>>,
    /// Sines, like `cos`.
    pub sin: Arc<Vec<f32>>,
    /// Half the number of rotated features of a head.
    pub width: usize,
}

impl Rope {
    /// By cosines and sines of `[time, width]`.
    pub fn new(cos: Arc<Vec<f32>>, sin: Arc<Vec<f32>>, width: usize) -> Self {
        Self { cos, sin, width }
    }

    fn apply(&self, x: HostView, direction: f32) -> Vec<f32> {
        let &[_, time, heads, head_dim] = x.shape else {
            panic!(
                "rotary embedding needs [batch, time, heads, head_dim], got {:?}",
                x.shape
            );
        };
        let (width, row) = (self.width, heads * head_dim);
        let [out] = in_pieces([x.data.len() / row.max(1), row], |first, [out]| {
            out.copy_from_slice(&x.data[first * row..][..out.len()]);
            for (index, out) in out.chunks_exact_mut(row.max(1)).enumerate() {
                let at = ((first + index) % time) * width;
                let (cos, sin) = (&self.cos[at..at + width], &self.sin[at..at + width]);
                for head in out.chunks_exact_mut(head_dim) {
                    let (first, second) = head[..2 * width].split_at_mut(width);
                    for i in 0..width {
                        let (a, b, sin) = (first[i], second[i], direction * sin[i]);
                        first[i] = a * cos[i] - b * sin;
                        second[i] = b * cos[i] + a * sin;
                    }
                }
            }
        });
        out
    }
}

impl HostOp for Rope {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        Forward::new(inputs[0].shape, self.apply(inputs[0], 1.0))
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    fn backward(
        &self,
        _inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        vec![Some(self.apply(grad, -1.0))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() {
        let angles = random(6, 7);
        let cos = Arc::new(angles.iter().map(|a| a.cos()).collect());
        let sin = Arc::new(angles.iter().map(|a| a.sin()).collect());
        // 3 positions, 2 of 6 features pairs rotated: the last two features pass through.
        let rope = Rope { cos, sin, width: 2 };
        check_gradients(&rope, &[(vec![2, 3, 2, 6], random(72, 1))]);
        let (shape, x) = ([2, 3, 2, 6], random(72, 1));
        let y = rope.forward(&[HostView::new(&shape, &x)], false).data;
        assert_eq!(y[4..6], x[4..6]);
        let norm = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>();
        assert!((norm(&x) - norm(&y)).abs() < 1e-4);
    }
}
