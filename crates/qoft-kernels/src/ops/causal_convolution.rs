//! A causal convolution along the sequence, of each channel by itself.

use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;
use crate::wide;

/// `y_t = Σ_j w_{width − 1 − j} · x_{t − j}` for each channel; what is before the first token is 0.
///
/// Inputs: `x` of `[batch, time, channels]` and weights of `[channels, width]`, the last of which meets
/// the token itself. Output like `x`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CausalConvolution {
    /// Whether the weights train. Only then `x` is kept.
    pub trains: bool,
}

impl CausalConvolution {
    /// With weights that train, or without.
    pub fn new(trains: bool) -> Self {
        Self { trains }
    }
}

/// The weights of all channels, those of the token itself first: `[width, channels]`.
fn by_distance(weight: HostView) -> Vec<f32> {
    let (channels, width) = weight.rows();
    let mut out = vec![0.0; weight.data.len()];
    for (channel, weights) in weight.data.chunks_exact(width.max(1)).enumerate() {
        for (distance, weight) in weights.iter().rev().enumerate() {
            out[distance * channels + channel] = *weight;
        }
    }
    out
}

/// `out_t += Σ_j w_j · x_{t ∓ j}`: over tokens before each one, or over those behind it.
fn convolve(x: HostView, weight: HostView, behind: bool) -> Vec<f32> {
    let &[_, time, channels] = x.shape else {
        panic!(
            "a convolution needs [batch, time, channels], got {:?}",
            x.shape
        );
    };
    let weights = by_distance(weight);
    let rows = x.data.len() / channels.max(1);
    let [out] = in_pieces([rows, channels], |first, [out]| {
        for (index, out) in out.chunks_exact_mut(channels.max(1)).enumerate() {
            let row = first + index;
            let within = row % time;
            let seen = if behind { time - 1 - within } else { within };
            let weights = weights.chunks_exact(channels).take(seen + 1);
            for (distance, weights) in weights.enumerate() {
                let from = if behind {
                    row + distance
                } else {
                    row - distance
                };
                let x = &x.data[from * channels..][..channels];
                wide!({
                    for ((out, x), weight) in out.iter_mut().zip(x).zip(weights) {
                        *out += x * weight;
                    }
                });
            }
        }
    });
    out
}

/// The gradients of the weights, `[channels, width]`.
fn weight_gradient(x: HostView, grad: HostView, width: usize) -> Vec<f32> {
    let &[_, time, channels] = x.shape else {
        panic!(
            "a convolution needs [batch, time, channels], got {:?}",
            x.shape
        );
    };
    let mut out = vec![0.0; channels * width];
    for (row, grad) in grad.data.chunks_exact(channels.max(1)).enumerate() {
        for distance in 0..width.min(row % time + 1) {
            let x = &x.data[(row - distance) * channels..][..channels];
            let out = out[width - 1 - distance..].iter_mut().step_by(width);
            for ((out, x), grad) in out.zip(x).zip(grad) {
                *out += x * grad;
            }
        }
    }
    out
}

impl HostOp for CausalConvolution {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        Forward::new(inputs[0].shape, convolve(inputs[0], inputs[1], false))
    }

    fn reads(&self, index: usize) -> bool {
        index == 1 || self.trains
    }

    fn backward(
        &self,
        inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let width = inputs[1].rows().1;
        vec![
            wants[0].then(|| convolve(grad, inputs[1], true)),
            wants[1].then(|| weight_gradient(inputs[0], grad, width)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() {
        for [time, width] in [[5, 3], [2, 4], [4, 1]] {
            let x = (vec![2, time, 3], random(6 * time, 1));
            let weight = (vec![3, width], random(3 * width, 2));
            check_gradients(&CausalConvolution::new(true), &[x, weight]);
        }
    }

    #[test]
    fn each_token_sees_itself_and_those_before_it() {
        let inputs = [
            HostView::new(&[2, 3, 1], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]),
            HostView::new(&[1, 2], &[0.5, 4.0]),
        ];
        let y = CausalConvolution::new(false).forward(&inputs, false).data;
        assert_eq!(y, [4.0, 8.5, 13.0, 40.0, 85.0, 130.0]);
    }
}
