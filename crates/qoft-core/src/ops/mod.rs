//! Operations of [`qoft_kernels`] as part of Burn's autodiff graph.
//!
//! One extension of Burn's backends runs any [`HostOp`](qoft_kernels::HostOp): on CPU backends it borrows the tensors'
//! memory, and its backward is the operation's own. On GPUs the same operations are composed of
//! Burn's own, and another extension, [`PackedOps`], multiplies with packed weights; only what
//! cannot be composed is copied to the host and back.

mod bridge;
mod composed;
#[cfg(feature = "cubecl")]
mod cube;
mod host;
mod packed;
mod rounded;
mod saved;
mod traced;

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft_kernels::ops::{
    Activation, CausalAttention, CausalConvolution, Cayley, ClampedSwiglu, CollectRows,
    DenseMatmul, Gated, GatedDeltaRule, GroupedMatmul, InputQuantizer, LayerNorm,
    LinearCrossEntropy, RmsNorm, Rope, Rotate, RoutedRows, SoftCap, SpreadRows, StraightThrough,
    TrainedCrossEntropy, WeightedGated,
};
use qoft_kernels::{HostView, PackedWeight};

pub use bridge::{HostCall, HostOps};
pub use host::HostTensors;
pub use packed::{PackedOps, SharedWeight};
pub use rounded::StoredActivation;
pub use saved::SharedOp;
pub use traced::{Trace, Traced};

/// Whether the values of tensors are far from the host, on a GPU. There operations are composed of
/// Burn's, and [`Traced::kept_in`] has no effect on what those keep.
pub fn is_far(device: &Device) -> bool {
    #[cfg(feature = "cubecl")]
    {
        use burn::backend::DispatchDevice;
        let device = device.clone().without_autodiff();
        matches!(device.as_dispatch(), DispatchDevice::Cube(_))
    }
    #[cfg(not(feature = "cubecl"))]
    {
        let _ = device;
        false
    }
}

/// `x · Wᵀ` over the last dimension of `x`; `x` is not kept for the backward.
pub fn packed_matmul<const D: usize>(x: Tensor<D>, weight: &Arc<dyn PackedWeight>) -> Tensor<D> {
    packed::matmul(x, weight, false)
}

/// `x · Wᵀ` for several pairs of `x` of `[rows, in_features]` and a weight, as [`packed_matmul`].
///
/// Single rows without a graph are multiplied all at once: such a product takes so little time that
/// threads should meet once for all, not once for each.
pub fn packed_matmul_each<const N: usize>(
    x: [Tensor<2>; N],
    weights: [&Arc<dyn PackedWeight>; N],
) -> [Tensor<2>; N] {
    let at_once = |x: &Tensor<2>| {
        let device = x.device();
        x.dims()[0] == 1 && !device.is_autodiff() && !is_far(&device)
    };
    let mut each = x.iter().zip(weights);
    let pairs = [(); N].map(|()| each.next().expect("as many tensors as weights"));
    if !x.iter().all(at_once) {
        return pairs.map(|(x, weight)| packed_matmul(x.clone(), weight));
    }
    let device = x[0].device();
    let rows = pairs.map(|(x, _)| host_values(x.clone()));
    let mut rows = rows.iter();
    let products = pairs.map(|(_, weight)| (&rows.next().expect("a row each")[..], &**weight));
    qoft_kernels::ops::packed_matmul_each(products).map(|y| {
        let shape = [1, y.len()];
        Tensor::from_data(TensorData::new(y, shape), &device)
    })
}

/// The values of activations, on a CPU.
fn host_values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    let values = x.into_data().try_into_vec::<f32>();
    values.expect("activations are f32")
}

/// `x · Wᵀ`, where each group of consecutive rows of `x` meets a weight of its own, as
/// [`packed_matmul`].
pub fn grouped_matmul(x: Tensor<2>, op: GroupedMatmul) -> Tensor<2> {
    if is_far(&x.device()) {
        return composed::grouped_matmul(x, &op);
    }
    bridge::unary(x, op).into_tensor()
}

/// Copies each row of `x` of `[rows, width]` to its places.
pub fn spread_rows(x: Tensor<2>, rows: RoutedRows) -> Tensor<2> {
    if is_far(&x.device()) {
        return composed::spread_rows(x, &rows);
    }
    bridge::unary(x, SpreadRows(rows)).into_tensor()
}

/// Adds up what stands at the places of each row, `[places, width]`: `[rows, width]`.
pub fn collect_rows(y: Tensor<2>, rows: RoutedRows) -> Tensor<2> {
    if is_far(&y.device()) {
        return composed::collect_rows(y, &rows);
    }
    bridge::unary(y, CollectRows(rows)).into_tensor()
}

/// `x · Wᵀ` over the last dimension of `x`, for a weight that may train.
pub fn dense_matmul(x: impl Into<Traced<2>>, weight: Tensor<2>) -> Tensor<2> {
    bridge::binary(x, weight, DenseMatmul).into_tensor()
}

/// `x · blockdiag(blocks)` for `x` of `[.., r·b]` and blocks of `[r, b, b]` or `[1, b, b]`.
pub fn rotate<const D: usize>(x: impl Into<Traced<D>>, blocks: Tensor<3>) -> Tensor<D> {
    let x = x.into();
    if is_far(&x.device()) {
        return composed::rotate(x.into_tensor(), blocks);
    }
    bridge::binary(x, blocks, Rotate).into_tensor()
}

/// Rotations `[r, b, b]` from parameters `[r, b(b−1)/2]`.
pub fn cayley(params: Tensor<2>, op: Cayley) -> Tensor<3> {
    if is_far(&params.device()) {
        return composed::cayley(params, op);
    }
    bridge::unary(params, op).into_tensor()
}

/// Root-mean-square normalization of the last dimension.
pub fn rms_norm<const D: usize>(x: impl Into<Traced<D>>, weight: Tensor<1>, eps: f32) -> Traced<D> {
    let x = x.into();
    if is_far(&x.device()) {
        return composed::rms_norm(x.into_tensor(), weight, eps).into();
    }
    bridge::binary(x, weight, RmsNorm::new(eps))
}

/// Normalization of the last dimension to a mean of 0 and a variance of 1, without a bias.
pub fn layer_norm<const D: usize>(
    x: impl Into<Traced<D>>,
    weight: Tensor<1>,
    eps: f32,
) -> Tensor<D> {
    let x = x.into();
    if is_far(&x.device()) {
        return composed::layer_norm(x.into_tensor(), weight, eps);
    }
    bridge::binary(x, weight, LayerNorm::new(eps)).into_tensor()
}

/// An activation, element by element.
pub fn activation<const D: usize>(x: impl Into<Traced<D>>, activation: Activation) -> Tensor<D> {
    let x = x.into();
    if is_far(&x.device())
        && let Some(y) = composed::activation(&x, activation)
    {
        return y;
    }
    bridge::unary(x, activation).into_tensor()
}

/// `activation(gate) · up`.
pub fn gated<const D: usize>(
    gate: impl Into<Traced<D>>,
    up: impl Into<Traced<D>>,
    activation: Activation,
) -> Traced<D> {
    let (gate, up) = (gate.into(), up.into());
    if is_far(&gate.device())
        && let Some(gate) = composed::activation(&gate, activation)
    {
        return (gate * up.into_tensor()).into();
    }
    bridge::binary(gate, up, Gated::new(activation))
}

/// `activation(gate) · up`, times a factor for each row: `factors` is `[rows, 1]`.
pub fn weighted_gated(
    gate: impl Into<Traced<2>>,
    up: impl Into<Traced<2>>,
    factors: impl Into<Traced<2>>,
    activation: Activation,
) -> Traced<2> {
    let (gate, up, factors) = (gate.into(), up.into(), factors.into());
    if is_far(&gate.device())
        && let Some(gate) = composed::activation(&gate, activation)
    {
        return (gate * up.into_tensor() * factors.into_tensor()).into();
    }
    bridge::ternary(gate, up, factors, WeightedGated::new(activation))
}

/// A gated activation of gates and what they let through, side by side in `[rows, 2 · width]`.
pub fn clamped_swiglu(x: impl Into<Traced<2>>, op: ClampedSwiglu) -> Traced<2> {
    let x = x.into();
    if is_far(&x.device()) {
        return composed::clamped_swiglu(x.into_tensor(), op).into();
    }
    bridge::unary(x, op)
}

/// `cap · tanh(x / cap)`.
pub fn soft_cap<const D: usize>(x: Tensor<D>, cap: SoftCap) -> Tensor<D> {
    (x / cap.cap()).tanh() * cap.cap()
}

/// Rotary position embedding of `[batch, time, heads, head_dim]`.
pub fn rope(x: Tensor<4>, rope: Rope) -> Tensor<4> {
    if is_far(&x.device()) {
        return composed::rope(x, &rope);
    }
    bridge::unary(x, rope).into_tensor()
}

/// Causal attention of queries, keys and values over `[batch, time, heads, head_dim]`, with fewer
/// heads in keys and values, and perhaps sinks of the heads of queries.
pub fn attention(qkv: [Traced<4>; 3], sinks: Option<Tensor<1>>, op: CausalAttention) -> Tensor<4> {
    if is_far(&qkv[0].device()) {
        return composed::attention(qkv.map(Traced::into_tensor), sinks, op);
    }
    let out = match sinks {
        Some(sinks) => bridge::quaternary(qkv, sinks, op),
        None => {
            let [q, k, v] = qkv;
            bridge::ternary(q, k, v, op)
        }
    };
    out.into_tensor()
}

/// A causal convolution of each channel by itself, of `x` of `[batch, time, channels]` with weights of
/// `[channels, width]`, see [`CausalConvolution`].
pub fn causal_convolution(
    x: impl Into<Traced<3>>,
    weight: Tensor<2>,
    op: CausalConvolution,
) -> Tensor<3> {
    let x = x.into();
    if is_far(&x.device()) {
        return composed::causal_convolution(x.into_tensor(), weight);
    }
    bridge::binary(x, weight, op).into_tensor()
}

/// The gated delta rule on queries, keys and values, logarithms of decays, and rates, see
/// [`GatedDeltaRule`].
pub fn gated_delta_rule(inputs: [Traced<3>; 3], op: GatedDeltaRule) -> Tensor<3> {
    if is_far(&inputs[0].device()) {
        return composed::gated_delta_rule(inputs.map(Traced::into_tensor), None, op).0;
    }
    let [x, decay, beta] = inputs;
    bridge::ternary(x, decay, beta, op).into_tensor()
}

/// As [`gated_delta_rule`] for tokens that follow others, without gradients: with the states behind them,
/// `[batch, value_heads, key_dim, value_dim]`, and from there on; `None` is before the first token.
pub fn gated_delta_rule_from(
    inputs: [Tensor<3>; 3],
    states: Option<Tensor<4>>,
    op: GatedDeltaRule,
) -> (Tensor<3>, Tensor<4>) {
    let device = inputs[0].device();
    if is_far(&device) {
        return composed::gated_delta_rule(inputs, states, op);
    }
    let [batch, time, _] = inputs[0].dims();
    let inputs = inputs.map(|x| (x.dims(), host_values(x)));
    let views = inputs
        .each_ref()
        .map(|(dims, data)| HostView::new(dims, data));
    let mut states = match states {
        Some(states) => host_values(states),
        None => vec![0.0; batch * op.state_len()],
    };
    let out = op.forward_from(&views, &mut states);
    let out = TensorData::new(out, [batch, time, op.out_features()]);
    let states = TensorData::new(states, [batch, op.value_heads, op.key_dim, op.value_dim]);
    (
        Tensor::from_data(out, &device),
        Tensor::from_data(states, &device.without_autodiff()),
    )
}

/// Output head and cross-entropy in one: `[2 · groups]`, the losses and how many labels have the largest
/// logit.
pub fn linear_cross_entropy(h: impl Into<Traced<2>>, op: LinearCrossEntropy) -> Tensor<1> {
    let h = h.into();
    if is_far(&h.device()) {
        return composed::linear_cross_entropy(h.into_tensor(), op);
    }
    bridge::unary(h, op).into_tensor()
}

/// As [`linear_cross_entropy`], with a weight and a bias of which those are given that `op` has as
/// inputs.
pub fn trained_cross_entropy(
    h: impl Into<Traced<2>>,
    operands: [Option<Tensor<2>>; 2],
    op: TrainedCrossEntropy,
) -> Tensor<1> {
    let loss = match operands {
        [None, None] => bridge::unary(h, op),
        [Some(one), None] | [None, Some(one)] => bridge::binary(h, one, op),
        [Some(weight), Some(bias)] => bridge::ternary(h, weight, bias, op),
    };
    loss.into_tensor()
}

/// A scheme's quantization of activations; the gradient passes unchanged.
pub fn straight_through<const D: usize>(
    x: Tensor<D>,
    quantizer: &Arc<dyn InputQuantizer>,
) -> Tensor<D> {
    let quantizer = quantizer.clone();
    bridge::unary(x, StraightThrough::new(quantizer)).into_tensor()
}

/// The rows of `table` that `ids` of `[batch, time]` name: `[batch · time, width]`.
///
/// # Panics
/// If an id is not a row of the table.
pub fn embed(table: &dyn PackedWeight, ids: Tensor<2, Int>) -> Tensor<2> {
    let device = ids.device();
    let ids: Vec<usize> = ids
        .into_data()
        .iter::<i64>()
        .map(|id| usize::try_from(id).unwrap_or(usize::MAX))
        .collect();
    let values = qoft_kernels::ops::embed(table, &ids);
    let data = TensorData::new(values, [ids.len(), table.shape()[1]]);
    Tensor::from_data(data, &device)
}

/// Both tensors on an autodiff device if one of them is: Burn's own operations want them alike.
pub fn lifted<const D: usize, const E: usize>(
    a: Tensor<D>,
    b: Tensor<E>,
) -> (Tensor<D>, Tensor<E>) {
    if a.device().is_autodiff() || b.device().is_autodiff() {
        (a.autodiff(), b.autodiff())
    } else {
        (a, b)
    }
}
