//! Operations composed of Burn's own, for devices where host operations would copy their inputs
//! back and forth. They compute what the host operations of the same names compute.

mod attention;
mod cayley;
mod constants;
mod cross_entropy;
mod delta_rule;
mod routed;

use std::sync::{Arc, Weak};

use burn::tensor::activation::{relu, sigmoid, silu};
use burn::tensor::{Tensor, TensorData};
use qoft_kernels::ops::{Activation, ClampedSwiglu, Rope};

use self::constants::Constants;
use super::lifted;
pub use attention::attention;
pub use cayley::cayley;
pub use cross_entropy::linear_cross_entropy;
pub use delta_rule::gated_delta_rule;
pub use routed::{collect_rows, grouped_matmul, spread_rows};

/// Root-mean-square normalization of the last dimension.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f32) -> Tensor<D> {
    let square = x.clone().square().mean_dim(D - 1);
    x * (square + eps).sqrt().recip() * weight.unsqueeze()
}

/// Normalization of the last dimension to a mean of 0 and a variance of 1, without a bias.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f32) -> Tensor<D> {
    let x = x.clone() - x.mean_dim(D - 1);
    rms_norm(x, weight, eps)
}

/// An activation, element by element; `None` if it is none of those that are composed here.
pub fn activation<const D: usize>(x: &Tensor<D>, activation: Activation) -> Option<Tensor<D>> {
    let x = x.clone();
    Some(match activation {
        // Not Burn's own, whose gradient is that of the approximation with tanh.
        Activation::Gelu => {
            let phi = ((x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
            x * phi
        }
        // `(1 + tanh(z)) / 2 = sigmoid(2z)` with z = √(2/π) · (x + 0.044715 x³).
        Activation::GeluTanh => {
            let inner = (x.clone().square() * 0.044_715 + 1.0) * x.clone();
            x * sigmoid(inner * (2.0 * (2.0 / std::f64::consts::PI).sqrt()))
        }
        Activation::Relu => relu(x),
        Activation::Silu => silu(x),
        Activation::Tanh => x.tanh(),
        _ => return None,
    })
}

/// A gated activation of gates and what they let through, side by side in `[rows, 2 · width]`.
pub fn clamped_swiglu(x: Tensor<2>, op: ClampedSwiglu) -> Tensor<2> {
    let [rows, both] = x.dims();
    let pairs = x.reshape([rows, both / 2, 2]);
    let part = |index| pairs.clone().narrow(2, index, 1).reshape([rows, both / 2]);
    let gate: Tensor<2> = part(0);
    let gate = gate.clamp_max(op.limit);
    let up = part(1).clamp(-op.limit, op.limit);
    (up + 1.0) * (gate.clone() * sigmoid(gate * op.alpha))
}

/// `x · blockdiag(blocks)` for `x` of `[.., r·b]` and blocks of `[r, b, b]` or `[1, b, b]`.
pub fn rotate<const D: usize>(x: Tensor<D>, blocks: Tensor<3>) -> Tensor<D> {
    let (dims, [stored, size, _]) = (x.dims(), blocks.dims());
    let (width, all) = (dims[D - 1], dims.iter().product::<usize>());
    if all == 0 {
        return x;
    }
    let rows = all / width;
    if stored == 1 {
        let x = x.reshape([1, rows * (width / size), size]);
        return x.matmul(blocks).reshape(dims);
    }
    let x = x.reshape([rows, stored, size]).swap_dims(0, 1);
    x.matmul(blocks).swap_dims(0, 1).reshape(dims)
}

/// A causal convolution of each channel by itself, `[batch, time, channels]`, with weights of
/// `[channels, width]`.
pub fn causal_convolution(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    let (x, weight) = lifted(x, weight);
    let ([batch, time, channels], [_, width]) = (x.dims(), weight.dims());
    let before = Tensor::zeros([batch, width, channels], &x.device());
    // One more than is needed: no width asks for an empty tensor.
    let x = Tensor::cat(vec![before, x], 1);
    let products = (0..width).map(|place| {
        let weights = weight.clone().narrow(1, place, 1);
        let weights = weights.reshape([1, 1, channels]);
        x.clone().narrow(1, place + 1, time) * weights
    });
    let sum = products.reduce(|sum, product| sum + product);
    sum.expect("weights have a width")
}

/// Rotary position embedding of `[batch, time, heads, head_dim]`.
pub fn rope(x: Tensor<4>, rope: &Rope) -> Tensor<4> {
    let [_, time, _, head_dim] = x.dims();
    let width = rope.width;
    let device = x.device().without_autodiff();
    let tables = || {
        [&rope.cos, &rope.sin].map(|values| {
            let data = TensorData::new(values.to_vec(), [1, time, 1, width]);
            Tensor::<4>::from_data(data, &device)
        })
    };
    let key = TableKey(Arc::downgrade(&rope.cos));
    let [cos, sin] = TABLES.get(key, &device, |key| key.0.strong_count() > 0, tables);
    let first = x.clone().narrow(3, 0, width);
    let second = x.clone().narrow(3, width, width);
    let mut parts = vec![
        first.clone() * cos.clone() - second.clone() * sin.clone(),
        second * cos + first * sin,
    ];
    if 2 * width < head_dim {
        parts.push(x.narrow(3, 2 * width, head_dim - 2 * width));
    }
    Tensor::cat(parts, 3)
}

/// Tables that are in use: all layers of a model have the same one.
static TABLES: Constants<TableKey, [Tensor<4>; 2]> = Constants::new();

/// A table by its place in memory, which is its own for as long as this exists.
struct TableKey(Weak<Vec<f32>>);

impl PartialEq for TableKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

#[cfg(test)]
mod tests;
