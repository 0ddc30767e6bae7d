//! Causal attention with grouped heads, without keeping the matrix of probabilities.

use rayon::prelude::*;

use crate::gemm::{Mat, matmul};
use crate::op::{Forward, HostOp, HostView};

/// Queries that are handled at once: bounds the scratch memory at so many rows of scores.
const QUERIES: usize = 128;

/// Inputs: q `[batch, queries, heads, d]`, k and v `[batch, keys, kv_heads, d]`. Output like q.
///
/// The last query sees all keys, the one before all but the last, and so on. The backward
/// computes the probabilities again. Rows padded on the right need no mask: no real query
/// sees the padding.
#[derive(Debug, Clone, Copy)]
pub struct CausalAttention {
    /// Scores are multiplied by this, usually `1/√d`.
    pub scale: f32,
    /// How many keys a query sees at most, itself included; `None`: all before it.
    pub window: Option<usize>,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    d: usize,
}

impl Sizes {
    fn of(inputs: &[HostView]) -> Self {
        let (&[batch, queries, heads, d], &[_, keys, kv_heads, _]) =
            (inputs[0].shape, inputs[1].shape)
        else {
            panic!("attention needs [batch, time, heads, head_dim]");
        };
        assert!(
            heads % kv_heads == 0 && keys >= queries,
            "attention: heads or lengths"
        );
        Self {
            batch,
            queries,
            keys,
            heads,
            kv_heads,
            d,
        }
    }

    /// Where a head's first query lies, and the distance between two of its queries.
    fn query(&self, batch: usize, head: usize) -> (usize, usize) {
        (
            (batch * self.queries * self.heads + head) * self.d,
            self.heads * self.d,
        )
    }

    /// As [`Self::query`], for keys and values.
    fn key(&self, batch: usize, kv_head: usize) -> (usize, usize) {
        (
            (batch * self.keys * self.kv_heads + kv_head) * self.d,
            self.kv_heads * self.d,
        )
    }

    /// All (batch, kv head) pairs: the units of work.
    fn units(&self) -> impl IndexedParallelIterator<Item = (usize, usize)> + use<> {
        let kv_heads = self.kv_heads;
        (0..self.batch * kv_heads)
            .into_par_iter()
            .map(move |i| (i / kv_heads, i % kv_heads))
    }

    fn group(&self, kv_head: usize) -> std::ops::Range<usize> {
        let size = self.heads / self.kv_heads;
        kv_head * size..(kv_head + 1) * size
    }
}

/// A block of queries and the keys that they can see.
struct Block {
    start: usize,
    rows: usize,
    first_key: usize,
    keys: usize,
}

impl CausalAttention {
    fn blocks(&self, s: Sizes) -> impl Iterator<Item = Block> + use<'_> {
        let past = s.keys - s.queries;
        (0..s.queries).step_by(QUERIES).map(move |start| {
            let rows = QUERIES.min(s.queries - start);
            let first_key = self.first_key(past + start);
            Block {
                start,
                rows,
                first_key,
                keys: past + start + rows - first_key,
            }
        })
    }

    /// The first key that the query at absolute position `position` sees.
    fn first_key(&self, position: usize) -> usize {
        self.window
            .map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Softmax of the scores of a block, in place; what a query cannot see becomes 0.
    fn probabilities(&self, s: Sizes, block: &Block, q: Mat, k: Mat, p: &mut Vec<f32>) {
        p.clear();
        p.resize(block.rows * block.keys, 0.0);
        matmul(p, block.keys, q, k.t(), false);
        let past = s.keys - s.queries;
        for (i, row) in p.chunks_exact_mut(block.keys).enumerate() {
            let position = past + block.start + i;
            let from = self.first_key(position) - block.first_key;
            let to = position + 1 - block.first_key;
            row[..from].fill(0.0);
            row[to..].fill(0.0);
            let row = &mut row[from..to];
            let max = row
                .iter()
                .fold(f32::NEG_INFINITY, |max, &v| max.max(v * self.scale));
            let mut sum = 0.0;
            for v in row.iter_mut() {
                *v = (*v * self.scale - max).exp();
                sum += *v;
            }
            row.iter_mut().for_each(|v| *v /= sum);
        }
    }
}

/// `rows` rows of a head in one of the tensors.
fn head(data: &[f32], (at, stride): (usize, usize), from: usize, rows: usize, d: usize) -> Mat<'_> {
    Mat::new(&data[at + from * stride..], rows, d, stride)
}

/// Copies `rows × d` values to a head of an interleaved tensor.
fn scatter(out: &mut [f32], (at, stride): (usize, usize), values: &[f32], d: usize) {
    for (row, values) in values.chunks_exact(d).enumerate() {
        out[at + row * stride..][..d].copy_from_slice(values);
    }
}

impl HostOp for CausalAttention {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let s = Sizes::of(inputs);
        let [q, k, v] = [inputs[0].data, inputs[1].data, inputs[2].data];
        let results: Vec<Vec<(usize, Vec<f32>)>> = s
            .units()
            .map_init(Vec::new, |p, (batch, kv_head)| {
                let one_head = |h: usize| {
                    let mut out = vec![0.0; s.queries * s.d];
                    for block in self.blocks(s) {
                        let q = head(q, s.query(batch, h), block.start, block.rows, s.d);
                        let at = s.key(batch, kv_head);
                        let k = head(k, at, block.first_key, block.keys, s.d);
                        let v = head(v, at, block.first_key, block.keys, s.d);
                        self.probabilities(s, &block, q, k, p);
                        let p = Mat::new(p, block.rows, block.keys, block.keys);
                        matmul(&mut out[block.start * s.d..], s.d, p, v, false);
                    }
                    (h, out)
                };
                s.group(kv_head).map(one_head).collect()
            })
            .collect();
        let mut out = vec![0.0; q.len()];
        for (unit, heads) in results.into_iter().enumerate() {
            for (h, values) in heads {
                scatter(&mut out, s.query(unit / s.kv_heads, h), &values, s.d);
            }
        }
        Forward::new(inputs[0].shape, out)
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
        let s = Sizes::of(inputs);
        let grads: Vec<HeadGradients> = s
            .units()
            .map(|(batch, kv_head)| self.unit_gradients(s, inputs, grad.data, batch, kv_head))
            .collect();
        let mut dq = vec![0.0; inputs[0].data.len()];
        let mut dk = vec![0.0; inputs[1].data.len()];
        let mut dv = vec![0.0; inputs[2].data.len()];
        for (unit, grads) in grads.into_iter().enumerate() {
            let (batch, kv_head) = (unit / s.kv_heads, unit % s.kv_heads);
            for (h, values) in s.group(kv_head).zip(&grads.dq) {
                scatter(&mut dq, s.query(batch, h), values, s.d);
            }
            scatter(&mut dk, s.key(batch, kv_head), &grads.dk, s.d);
            scatter(&mut dv, s.key(batch, kv_head), &grads.dv, s.d);
        }
        vec![Some(dq), Some(dk), Some(dv)]
    }
}

/// Gradients of one kv head and of the query heads that share it.
struct HeadGradients {
    dq: Vec<Vec<f32>>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl CausalAttention {
    /// With P the probabilities: `dV = Pᵀ·dO`, `dP = dO·Vᵀ`, `dS = P∘(dP − rowsum(P∘dP))·scale`,
    /// `dQ = dS·K`, `dK = dSᵀ·Q`.
    fn unit_gradients(
        &self,
        s: Sizes,
        inputs: &[HostView],
        grad: &[f32],
        batch: usize,
        kv_head: usize,
    ) -> HeadGradients {
        let [q, k, v] = [inputs[0].data, inputs[1].data, inputs[2].data];
        let (mut dk, mut dv) = (vec![0.0; s.keys * s.d], vec![0.0; s.keys * s.d]);
        let (mut p, mut ds) = (Vec::new(), Vec::new());
        let one_head = |h: usize| {
            let mut dq = vec![0.0; s.queries * s.d];
            for block in self.blocks(s) {
                let q = head(q, s.query(batch, h), block.start, block.rows, s.d);
                let grad = head(grad, s.query(batch, h), block.start, block.rows, s.d);
                let at = s.key(batch, kv_head);
                let k = head(k, at, block.first_key, block.keys, s.d);
                let v = head(v, at, block.first_key, block.keys, s.d);
                self.probabilities(s, &block, q, k, &mut p);
                ds.clear();
                ds.resize(p.len(), 0.0);
                matmul(&mut ds, block.keys, grad, v.t(), false);
                let p_mat = Mat::new(&p, block.rows, block.keys, block.keys);
                matmul(&mut dv[block.first_key * s.d..], s.d, p_mat.t(), grad, true);
                for (ds, p) in ds
                    .chunks_exact_mut(block.keys)
                    .zip(p.chunks_exact(block.keys))
                {
                    let sum: f32 = ds.iter().zip(p).map(|(a, b)| a * b).sum();
                    ds.iter_mut()
                        .zip(p)
                        .for_each(|(ds, p)| *ds = p * (*ds - sum) * self.scale);
                }
                let ds = Mat::new(&ds, block.rows, block.keys, block.keys);
                matmul(&mut dq[block.start * s.d..], s.d, ds, k, false);
                matmul(&mut dk[block.first_key * s.d..], s.d, ds.t(), q, true);
            }
            dq
        };
        let dq = s.group(kv_head).map(one_head).collect();
        HeadGradients { dq, dk, dv }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    fn tensors(batch: usize, queries: usize, keys: usize) -> [(Vec<usize>, Vec<f32>); 3] {
        let tensor = |time, heads, seed| {
            (
                vec![batch, time, heads, 4],
                random(batch * time * heads * 4, seed),
            )
        };
        [
            tensor(queries, 4, 1),
            tensor(keys, 2, 2),
            tensor(keys, 2, 3),
        ]
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for window in [None, Some(2)] {
            check_gradients(&CausalAttention { scale: 0.7, window }, &tensors(2, 5, 5));
        }
        check_gradients(
            &CausalAttention {
                scale: 0.7,
                window: None,
            },
            &tensors(1, 2, 5),
        );
    }

    /// More queries than a block holds, against the definition.
    #[test]
    fn long_sequences_equal_the_definition() {
        let time = QUERIES * 2 + 3;
        for window in [None, Some(70)] {
            let op = CausalAttention { scale: 0.5, window };
            let inputs = tensors(1, time, time);
            let views: Vec<HostView> = inputs.iter().map(|(s, d)| HostView::new(s, d)).collect();
            let out = op.forward(&views, false).data;
            let at = |x: &[f32], heads, t, h, i| f64::from(x[(t * heads + h) * 4 + i]);
            for (t, h) in [(0, 0), (QUERIES - 1, 1), (QUERIES, 2), (time - 1, 3)] {
                let from = window.map_or(0, |w: usize| (t + 1).saturating_sub(w));
                let scores: Vec<f64> = (from..=t)
                    .map(|u| {
                        (0..4)
                            .map(|i| {
                                at(&inputs[0].1, 4, t, h, i) * at(&inputs[1].1, 2, u, h / 2, i)
                            })
                            .sum::<f64>()
                            * 0.5
                    })
                    .collect();
                let total: f64 = scores.iter().map(|s| s.exp()).sum();
                for i in 0..4 {
                    let value: f64 = (from..=t)
                        .zip(&scores)
                        .map(|(u, s)| s.exp() / total * at(&inputs[2].1, 2, u, h / 2, i))
                        .sum();
                    assert!((value - at(&out, 4, t, h, i)).abs() < 1e-5);
                }
            }
        }
    }
}
