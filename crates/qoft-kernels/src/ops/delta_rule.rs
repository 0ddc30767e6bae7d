//! The gated delta rule: a recurrence that remembers values by keys, and forgets.

mod chunk;
mod head;
mod keys;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;
use head::{Head, HeadGradients};
use keys::Keys;

/// Each head has a state `S` of `[key_dim, value_dim]`, which is 0 at first. A token with the query `q`,
/// the key `k`, the value `v`, the logarithm `g ≤ 0` of a decay and a rate `β` does
///
/// `S ← e^g · S`, `S ← S + k ⊗ β(v − Sᵀk)`, and reads `Sᵀq / √key_dim`,
///
/// with queries and keys of length 1: `x / √(Σx² + 10⁻⁶)`. Consecutive heads of the values share those of
/// queries and keys.
///
/// Inputs: queries, keys and values of all heads side by side, `[batch, time, 2 · key_heads · key_dim +
/// value_heads · value_dim]`; then `g` and `β`, `[batch, time, value_heads]`. Output: `[batch, time,
/// value_heads · value_dim]`.
///
/// Some tokens at a time are computed with a few products of matrices (Yang et al., "Gated Delta Networks",
/// 2024). The backward computes states again and keeps nothing beside the inputs: memory grows with the
/// length. The result does not depend on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatedDeltaRule {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of the values; a multiple of the former.
    pub value_heads: usize,
    /// Width of a head of queries or keys.
    pub key_dim: usize,
    /// Width of a head of the values.
    pub value_dim: usize,
}

/// A head of queries and keys in one sequence, with the heads of values that share it.
#[derive(Debug, Clone, Copy)]
struct Unit {
    batch: usize,
    key_head: usize,
}

impl GatedDeltaRule {
    /// Of heads of queries and keys, `[key_heads, key_dim]`, and of values, `[value_heads, value_dim]`.
    ///
    /// # Panics
    /// Unless `key_heads` divides `value_heads`.
    pub fn new([key_heads, key_dim]: [usize; 2], [value_heads, value_dim]: [usize; 2]) -> Self {
        assert!(value_heads.is_multiple_of(key_heads));
        Self {
            key_heads,
            value_heads,
            key_dim,
            value_dim,
        }
    }

    /// Width of the first input.
    pub fn in_features(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.out_features()
    }

    /// Width of the output.
    pub fn out_features(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Values of the states of one sequence.
    pub fn state_len(&self) -> usize {
        self.value_heads * self.key_dim * self.value_dim
    }

    /// The output for tokens that follow others, whose states are `[batch, value_heads, key_dim,
    /// value_dim]`; they become those behind the tokens.
    ///
    /// # Panics
    /// If the sizes do not fit each other.
    pub fn forward_from(&self, inputs: &[HostView], states: &mut [f32]) -> Vec<f32> {
        let [batch, time, width] = self.sizes(inputs);
        assert_eq!(states.len(), batch * self.state_len());
        let group = self.group() * self.key_dim * self.value_dim;
        let values = self.group() * self.value_dim;
        let outputs: Vec<Vec<f32>> = states
            .par_chunks_mut(group.max(1))
            .zip(self.units(batch))
            .map(|(states, unit)| {
                let keys = self.keys(inputs[0], unit);
                let mut out = vec![0.0; time * values];
                let states = states.chunks_exact_mut(self.key_dim * self.value_dim);
                for (number, state) in states.enumerate() {
                    let head = self.head(inputs, unit, number);
                    let out = &mut out[number * self.value_dim..];
                    head.forward(&keys, state, out, values);
                }
                out
            })
            .collect();
        debug_assert_eq!(width, self.in_features());
        let [out] = in_pieces([batch * time, self.out_features()], |first, [out]| {
            let rows = out.chunks_exact_mut(self.out_features()).enumerate();
            for (index, out) in rows {
                let (batch, t) = ((first + index) / time, (first + index) % time);
                let units = &outputs[batch * self.key_heads..];
                for (out, unit) in out.chunks_exact_mut(values).zip(units) {
                    out.copy_from_slice(&unit[t * values..][..values]);
                }
            }
        });
        out
    }

    /// Heads of values that share a head of keys.
    fn group(&self) -> usize {
        self.value_heads / self.key_heads
    }

    fn sizes(&self, inputs: &[HostView]) -> [usize; 3] {
        let (x, gates) = (inputs[0].shape, inputs[1].shape);
        let &[batch, time, width] = x else {
            panic!("the delta rule needs [batch, time, features], got {x:?}");
        };
        assert_eq!(width, self.in_features());
        assert_eq!(gates, [batch, time, self.value_heads]);
        assert_eq!(inputs[2].shape, gates);
        [batch, time, width]
    }

    fn units(&self, batch: usize) -> impl IndexedParallelIterator<Item = Unit> {
        let heads = self.key_heads;
        (0..batch * heads).into_par_iter().map(move |unit| Unit {
            batch: unit / heads,
            key_head: unit % heads,
        })
    }

    /// Where the queries, keys and values of a unit begin in a row of the first input.
    fn columns(&self, unit: Unit) -> [usize; 3] {
        let (keys, head) = (self.key_heads * self.key_dim, unit.key_head);
        [
            head * self.key_dim,
            keys + head * self.key_dim,
            2 * keys + head * self.group() * self.value_dim,
        ]
    }

    /// The queries and keys of a unit, normalized.
    fn keys(&self, x: HostView, unit: Unit) -> Keys {
        let rows = sequence(x, unit.batch);
        let [q, k, _] = self.columns(unit);
        Keys::new(rows, self.in_features(), [q, k], self.key_dim)
    }

    /// One of the heads of values of a unit.
    fn head<'a>(&self, inputs: &[HostView<'a>], unit: Unit, number: usize) -> Head<'a> {
        let [_, _, values] = self.columns(unit);
        let gates = |gates: HostView<'a>| {
            let column = unit.key_head * self.group() + number;
            let rows = sequence(gates, unit.batch);
            let column = rows.iter().skip(column).step_by(self.value_heads);
            column.copied().collect::<Vec<f32>>()
        };
        Head {
            values: &sequence(inputs[0], unit.batch)[values + number * self.value_dim..],
            stride: self.in_features(),
            decay: gates(inputs[1]),
            beta: gates(inputs[2]),
            dims: [self.key_dim, self.value_dim],
        }
    }
}

/// The rows of one sequence.
fn sequence<'a>(x: HostView<'a>, batch: usize) -> &'a [f32] {
    let rows: usize = x.shape[1..].iter().product();
    &x.data[batch * rows..][..rows]
}

/// The gradients of all inputs of a unit: `[time, ..]` each.
struct UnitGradients {
    q: Vec<f32>,
    k: Vec<f32>,
    heads: Vec<HeadGradients>,
}

impl HostOp for GatedDeltaRule {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let [batch, time, _] = self.sizes(inputs);
        let mut states = vec![0.0; batch * self.state_len()];
        let out = self.forward_from(inputs, &mut states);
        Forward::new(&[batch, time, self.out_features()], out)
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    fn backward(
        &self,
        inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let [batch, time, width] = self.sizes(inputs);
        let units: Vec<UnitGradients> = self
            .units(batch)
            .map(|unit| {
                let keys = self.keys(inputs[0], unit);
                let (mut dq, mut dk) = (keys.zeros(), keys.zeros());
                let heads = (0..self.group()).map(|number| {
                    let head = self.head(inputs, unit, number);
                    let column = (unit.key_head * self.group() + number) * self.value_dim;
                    let grad = &sequence(grad, unit.batch)[column..];
                    head.backward(&keys, grad, self.out_features(), [&mut dq, &mut dk])
                });
                let heads = heads.collect();
                let [q, k] = keys.unnormalized([dq, dk]);
                UnitGradients { q, k, heads }
            })
            .collect();

        let (keys, values) = (self.key_dim, self.value_dim);
        let [dx] = in_pieces([batch * time, width], |first, [out]| {
            for (index, out) in out.chunks_exact_mut(width).enumerate() {
                let (batch, t) = ((first + index) / time, (first + index) % time);
                for key_head in 0..self.key_heads {
                    let unit = Unit { batch, key_head };
                    let gradients = &units[batch * self.key_heads + key_head];
                    let [q, k, v] = self.columns(unit);
                    out[q..q + keys].copy_from_slice(&gradients.q[t * keys..][..keys]);
                    out[k..k + keys].copy_from_slice(&gradients.k[t * keys..][..keys]);
                    let out = out[v..].chunks_exact_mut(values);
                    for (out, head) in out.zip(&gradients.heads) {
                        out.copy_from_slice(&head.values[t * values..][..values]);
                    }
                }
            }
        });
        let gates = |of: fn(&HeadGradients) -> &[f32]| {
            let mut out = Vec::with_capacity(batch * time * self.value_heads);
            for units in units.chunks_exact(self.key_heads) {
                for t in 0..time {
                    let heads = units.iter().flat_map(|unit| &unit.heads);
                    out.extend(heads.map(|head| of(head)[t]));
                }
            }
            out
        };
        vec![
            Some(dx),
            Some(gates(|head| &head.decay)),
            Some(gates(|head| &head.beta)),
        ]
    }
}
