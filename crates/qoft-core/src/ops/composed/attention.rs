//! Causal attention with grouped heads.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Int, Tensor};
use qoft_kernels::ops::CausalAttention;

use crate::ops::{lifted, soft_cap};

/// What a query cannot see; its exponential is 0 also after the largest score is subtracted.
const HIDDEN: f32 = -1e30;

/// Causal attention over `[batch, time, heads, head_dim]`, with fewer heads in keys and values, and perhaps
/// sinks of the heads of queries.
pub fn attention(
    [q, k, v]: [Tensor<4>; 3],
    sinks: Option<Tensor<1>>,
    op: CausalAttention,
) -> Tensor<4> {
    let ([batch, queries, heads, d], [_, keys, kv_heads, _]) = (q.dims(), k.dims());
    let hidden = hidden(queries, keys, &op, &q.device().without_autodiff());
    // Heads that share keys are rows of one product.
    let rows = heads / kv_heads * queries;
    let q = q.swap_dims(1, 2).reshape([batch, kv_heads, rows, d]);
    let (k, v) = (k.swap_dims(1, 2), v.swap_dims(1, 2));
    let scores = q.matmul(k.swap_dims(2, 3)) * op.scale;
    let scores = match op.soft_cap {
        Some(cap) => soft_cap(scores, cap),
        None => scores,
    };
    let scores = match hidden {
        Some(hidden) => {
            let scores = scores.reshape([batch, heads, queries, keys]);
            let hidden = hidden
                .reshape([1, 1, queries, keys])
                .expand([batch, heads, queries, keys]);
            let scores = scores.mask_fill(hidden, HIDDEN);
            scores.reshape([batch, kv_heads, rows, keys])
        }
        None => scores,
    };
    let shares = match sinks {
        None => softmax(scores, 3),
        Some(sinks) => {
            let sinks = sinks.reshape([1, kv_heads, heads / kv_heads, 1]);
            let sinks = sinks.expand([batch, kv_heads, heads / kv_heads, queries]);
            let (scores, sinks) = lifted(scores, sinks.reshape([batch, kv_heads, rows, 1]));
            softmax(Tensor::cat(vec![scores, sinks], 3), 3).narrow(3, 0, keys)
        }
    };
    let out = shares.matmul(v);
    out.reshape([batch, heads, queries, d]).swap_dims(1, 2)
}

/// The keys that each query does not see, if there are any.
fn hidden(
    queries: usize,
    keys: usize,
    op: &CausalAttention,
    device: &burn::tensor::Device,
) -> Option<Tensor<2, Bool>> {
    let (shape, past) = ([queries, keys], (keys - queries) as i64);
    let future = (queries > 1).then(|| Tensor::<2, Bool>::tril_mask(shape, past, device));
    let old = op.window.filter(|window| *window < keys).map(|window| {
        let offset = past + 1 - window as i64;
        Tensor::<2, Bool>::triu_mask(shape, offset, device)
    });
    let other = op.sequences.as_ref().map(|lengths| {
        let numbers = lengths.iter().enumerate();
        let numbers =
            numbers.flat_map(|(number, &length)| std::iter::repeat_n(number as i64, length));
        let numbers: Vec<i64> = numbers.collect();
        let numbers = Tensor::<1, Int>::from_data(&numbers[..], device);
        let rows = numbers.clone().reshape([queries, 1]).expand(shape);
        rows.not_equal(numbers.reshape([1, keys]).expand(shape))
    });
    [future, old, other]
        .into_iter()
        .flatten()
        .reduce(Tensor::bool_or)
}
