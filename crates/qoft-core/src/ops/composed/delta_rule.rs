//! The gated delta rule.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use qoft_kernels::ops::GatedDeltaRule;

/// Tokens that are computed together.
const CHUNK: usize = 64;

/// What a token does not see; its exponential is 0.
const HIDDEN: f32 = -1e30;

/// Added to the square of a length.
const EPS: f32 = 1e-6;

/// The rule on inputs of `[batch, time, ..]`, and the states behind them, `[batch, value_heads, key_dim,
/// value_dim]`, from those before them.
pub fn gated_delta_rule(
    [x, decay, beta]: [Tensor<3>; 3],
    states: Option<Tensor<4>>,
    op: GatedDeltaRule,
) -> (Tensor<3>, Tensor<4>) {
    let [batch, time, _] = x.dims();
    let (heads, keys) = (op.value_heads, op.key_heads * op.key_dim);
    let all = batch * heads;
    let queries = of_keys(x.clone().narrow(2, 0, keys), op) / (op.key_dim as f32).sqrt();
    let keys_of_all = of_keys(x.clone().narrow(2, keys, keys), op);
    let values = x.clone().narrow(2, 2 * keys, op.out_features());
    let values = values.reshape([batch, time, heads, op.value_dim]);
    let values = values.swap_dims(1, 2).reshape([all, time, op.value_dim]);
    let gates = |gates: Tensor<3>| gates.swap_dims(1, 2).reshape([all, time, 1]);
    let (decay, beta) = (gates(decay), gates(beta));
    let mut state = match states {
        Some(states) => states.reshape([all, op.key_dim, op.value_dim]),
        None => Tensor::zeros([all, op.key_dim, op.value_dim], &x.device()),
    };
    let mut outputs = Vec::new();
    for start in (0..time).step_by(CHUNK) {
        let rows = CHUNK.min(time - start);
        let part = |x: &Tensor<3>| x.clone().narrow(1, start, rows);
        let tokens = Tokens {
            queries: part(&queries),
            keys: part(&keys_of_all),
            values: part(&values),
            decay: part(&decay),
            beta: part(&beta),
        };
        let (output, next) = tokens.pass(state);
        outputs.push(output);
        state = next;
    }
    let out = match outputs.len() {
        0 => values,
        _ => Tensor::cat(outputs, 1),
    };
    let out = out.reshape([batch, heads, time, op.value_dim]);
    let out = out
        .swap_dims(1, 2)
        .reshape([batch, time, op.out_features()]);
    let states = state.reshape([batch, heads, op.key_dim, op.value_dim]);
    (out, states)
}

/// Queries or keys of length 1, once for each head of values: `[batch · value_heads, time, key_dim]`.
fn of_keys(x: Tensor<3>, op: GatedDeltaRule) -> Tensor<3> {
    let [batch, time, _] = x.dims();
    let group = op.value_heads / op.key_heads;
    let x = x.reshape([batch, time, op.key_heads, 1, op.key_dim]);
    let length = (x.clone().square().sum_dim(4) + EPS).sqrt();
    let x = (x / length).repeat_dim(3, group);
    let x = x.reshape([batch, time, op.value_heads, op.key_dim]);
    x.swap_dims(1, 2)
        .reshape([batch * op.value_heads, time, op.key_dim])
}

/// Some consecutive tokens of all heads, `[heads, rows, ..]`.
struct Tokens {
    queries: Tensor<3>,
    keys: Tensor<3>,
    values: Tensor<3>,
    decay: Tensor<3>,
    beta: Tensor<3>,
}

impl Tokens {
    /// What they read, and the state behind them.
    fn pass(self, state: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let rows = self.keys.dims()[1];
        let device = self.keys.device().without_autodiff();
        let sums = lower(rows, &device).matmul(self.decay);
        let hidden = Tensor::<2, Bool>::tril_mask([rows, rows], 0, &device);
        let between = sums.clone() - sums.clone().swap_dims(1, 2);
        let hidden = hidden.unsqueeze::<3>().expand(between.dims());
        let between = between.mask_fill(hidden, HIDDEN).exp();
        let turned = self.keys.clone().swap_dims(1, 2);
        let overlap = self.keys.clone().matmul(turned.clone()) * between.clone();
        let reads = self.queries.clone().matmul(turned.clone()) * between;

        let left = sums.clone().exp();
        let last = sums.clone().narrow(1, rows - 1, 1);
        let told = self.keys.matmul(state.clone()) * left.clone();
        let wanted = (self.values - told) * self.beta.clone();
        let written = inverse(overlap * self.beta, &device).matmul(wanted);
        let output = self.queries.matmul(state.clone()) * left + reads.matmul(written.clone());
        let rest = (last.clone() - sums).exp();
        (output, state * last.exp() + turned.matmul(written * rest))
    }
}

/// Ones on and below the diagonal.
fn lower(rows: usize, device: &Device) -> Tensor<3> {
    square(rows, |i, j| j <= i, device)
}

fn square(rows: usize, one: impl Fn(usize, usize) -> bool, device: &Device) -> Tensor<3> {
    let values = (0..rows * rows).map(|at| f32::from(one(at / rows, at % rows)));
    let data = TensorData::new(values.collect::<Vec<f32>>(), [1, rows, rows]);
    Tensor::from_data(data, device)
}

/// The inverse of `1 + A`, with what is below the diagonal of `A`, by blocks of twice the size each time:
/// the inverse of `[[a, 0], [b, c]]` is `[[a⁻¹, 0], [−c⁻¹ b a⁻¹, c⁻¹]]`.
fn inverse(a: Tensor<3>, device: &Device) -> Tensor<3> {
    let rows = a.dims()[1];
    let below = |size: usize| {
        let corner = |i: usize, j: usize| {
            i / (2 * size) == j / (2 * size) && i / size % 2 == 1 && (j / size).is_multiple_of(2)
        };
        square(rows, corner, device)
    };
    let mut inverse = square(rows, |i, j| i == j, device) - a.clone() * below(1);
    let mut size = 2;
    while size < rows {
        let corner = a.clone() * below(size);
        inverse = inverse.clone() - inverse.clone().matmul(corner).matmul(inverse);
        size *= 2;
    }
    inverse
}
