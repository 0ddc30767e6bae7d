//! Tests of the gated delta rule.

use super::*;
use crate::ops::testing::{check_gradients, random};

const OP: GatedDeltaRule = GatedDeltaRule {
    key_heads: 2,
    value_heads: 4,
    key_dim: 3,
    value_dim: 2,
};

/// Keys are no shorter than one or so: a short one has large gradients.
fn tensors(op: GatedDeltaRule, batch: usize, time: usize) -> [(Vec<usize>, Vec<f32>); 3] {
    let (width, heads) = (op.in_features(), op.value_heads);
    let x = random(batch * time * width, 1);
    let x = x.iter().map(|v| v + 0.6 * v.signum()).collect();
    let gates = |seed, of: fn(f32) -> f32| {
        let values = random(batch * time * heads, seed).into_iter();
        (vec![batch, time, heads], values.map(of).collect())
    };
    [
        (vec![batch, time, width], x),
        gates(2, |v| -0.2 * (v + 1.0)),
        gates(3, |v| 0.5 * (v + 1.0)),
    ]
}

fn views(tensors: &[(Vec<usize>, Vec<f32>); 3]) -> [HostView<'_>; 3] {
    tensors
        .each_ref()
        .map(|(shape, data)| HostView::new(shape, data))
}

#[test]
fn gradients_equal_finite_differences() {
    check_gradients(&OP, &tensors(OP, 2, 5));
    check_gradients(&OP, &tensors(OP, 1, 1));
    // Two chunks, of which the second one is not full.
    let small = GatedDeltaRule::new([1, 2], [1, 3]);
    check_gradients(&small, &tensors(small, 1, chunk::CHUNK + 5));
}

/// Token by token, as the rule is defined.
fn by_definition(op: GatedDeltaRule, inputs: &[HostView], batch: usize) -> Vec<f64> {
    let time = inputs[0].shape[1];
    let row = |x: HostView, t: usize| -> Vec<f64> {
        let width = x.shape[2];
        let row = &x.data[(batch * time + t) * width..][..width];
        row.iter().map(|&v| f64::from(v)).collect()
    };
    let mut out = vec![0.0; time * op.out_features()];
    for head in 0..op.value_heads {
        let mut state = vec![vec![0.0; op.value_dim]; op.key_dim];
        for t in 0..time {
            let (x, g, beta) = (row(inputs[0], t), row(inputs[1], t), row(inputs[2], t));
            let [q, k, v] = op.columns(Unit {
                batch,
                key_head: head / op.group(),
            });
            let v = v + head % op.group() * op.value_dim;
            let unit = |at: usize| -> Vec<f64> {
                let x = &x[at..at + op.key_dim];
                let length = (x.iter().map(|v| v * v).sum::<f64>() + 1e-6).sqrt();
                x.iter().map(|v| v / length).collect()
            };
            let (q, k) = (unit(q), unit(k));
            state.iter_mut().flatten().for_each(|s| *s *= g[head].exp());
            for column in 0..op.value_dim {
                let told: f64 = state.iter().zip(&k).map(|(s, k)| s[column] * k).sum();
                let write = beta[head] * (x[v + column] - told);
                state
                    .iter_mut()
                    .zip(&k)
                    .for_each(|(s, k)| s[column] += k * write);
                let read: f64 = state.iter().zip(&q).map(|(s, q)| s[column] * q).sum();
                let at = t * op.out_features() + head * op.value_dim + column;
                out[at] = read / (op.key_dim as f64).sqrt();
            }
        }
    }
    out
}

#[test]
fn chunks_equal_the_definition() {
    let time = 2 * chunk::CHUNK + 7;
    let tensors = tensors(OP, 2, time);
    let out = OP.forward(&views(&tensors), false).data;
    for (batch, out) in out.chunks_exact(time * OP.out_features()).enumerate() {
        let expected = by_definition(OP, &views(&tensors), batch);
        for (found, expected) in out.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-5,
                "{found} {expected}"
            );
        }
    }
}

#[test]
fn states_go_on() {
    let time = chunk::CHUNK + 9;
    let tensors = tensors(OP, 1, time);
    let whole = OP.forward(&views(&tensors), false).data;
    let (mut states, mut at) = (vec![0.0; OP.state_len()], 0);
    for tokens in [1, 5, 1, time - 7] {
        let part = tensors.each_ref().map(|(shape, data)| {
            let width = shape[2];
            let data = data[at * width..(at + tokens) * width].to_vec();
            (vec![1, tokens, width], data)
        });
        let out = OP.forward_from(&views(&part), &mut states);
        let expected = &whole[at * OP.out_features()..][..out.len()];
        for (found, expected) in out.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-5,
                "at {at}: {found} {expected}"
            );
        }
        at += tokens;
    }
}
