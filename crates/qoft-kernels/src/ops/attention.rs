//! Causal attention with grouped heads: the scores of all queries never exist together.

mod one_query;
mod sizes;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::soft_cap::SoftCap;
use crate::gemm::{Mat, matmul};
use crate::op::{Forward, HostOp, HostView};
use crate::team;
use crate::vector::{dot, exp, exp_sum, max};
use crate::wide;
use one_query::{Seen, attend};
use sizes::Sizes;

/// Products that are worth another thread.
const WORTH: usize = 1 << 15;

/// Inputs: q `[batch, queries, heads, d]`, k and v `[batch, keys, kv_heads, d]`, and perhaps sinks
/// `[heads]`. Output like q.
///
/// A sink is a score, neither scaled nor bounded, that all queries of its head have beside those of the keys
/// that they see; its value is 0.
///
/// The last query sees all keys, the one before all but the last, and so on. Rows padded on the
/// right need no mask: no real query sees the padding.
///
/// Some queries at a time are compared with all keys that they see, so memory grows with the
/// length, not with its square. The backward computes the probabilities again and keeps nothing
/// beside the inputs. The result does not depend on the number of threads.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CausalAttention {
    /// Scores are multiplied by this, a number from 0 on, usually `1/√d`.
    pub scale: f32,
    /// How many keys a query sees at most, itself included; `None`: all before it.
    pub window: Option<usize>,
    /// Bounds the scaled scores.
    pub soft_cap: Option<SoftCap>,
    /// The lengths of the sequences that stand one after another in each row of the batch, and do
    /// not see each other; `None`: a row is one sequence.
    pub sequences: Option<Arc<[usize]>>,
}

/// A block of queries and the keys that they can see.
struct Block {
    /// Where its sequence begins.
    sequence: usize,
    start: usize,
    rows: usize,
    first_key: usize,
    keys: usize,
}

impl CausalAttention {
    /// Scores times `scale`; a query sees `window` keys at most, or all before it.
    pub fn new(scale: f32, window: Option<usize>) -> Self {
        Self {
            scale,
            window,
            soft_cap: None,
            sequences: None,
        }
    }

    /// The same with bounded scores, or without.
    #[must_use]
    pub fn with_soft_cap(self, soft_cap: Option<SoftCap>) -> Self {
        Self { soft_cap, ..self }
    }

    /// The same where sequences with these lengths stand one after another in each row of the batch.
    #[must_use]
    pub fn with_sequences(self, sequences: Option<Arc<[usize]>>) -> Self {
        Self { sequences, ..self }
    }

    /// Bounds products of queries and keys; what they still have to be multiplied by.
    #[inline(always)]
    fn bound(&self, products: &mut [f32]) -> f32 {
        let Some(cap) = self.soft_cap else {
            return self.scale;
        };
        let scale = self.scale;
        products.iter_mut().for_each(|v| *v = cap.value(*v * scale));
        1.0
    }

    /// Softmax of products of a query with the keys that it sees, and of the sink. The share of the sink.
    #[inline(always)]
    fn normalize(&self, products: &mut [f32], sink: Option<f32>) -> f32 {
        let scale = self.bound(products);
        let largest = max(products) * scale;
        let shift = sink.map_or(largest, |sink| largest.max(sink));
        let sink = sink.map_or(0.0, |sink| exp(sink - shift));
        let factor = 1.0 / (exp_sum(products, scale, shift) + sink);
        products.iter_mut().for_each(|v| *v *= factor);
        sink * factor
    }

    /// The blocks of a row, one after another.
    fn blocks(&self, s: Sizes) -> Vec<Block> {
        let past = s.keys - s.queries;
        let whole = [s.queries];
        let lengths = self.sequences.as_deref().unwrap_or(&whole);
        assert!(
            lengths.iter().sum::<usize>() == s.queries && (lengths.len() == 1 || past == 0),
            "attention: lengths of sequences"
        );
        let (mut blocks, mut sequence) = (Vec::new(), 0);
        for &length in lengths {
            for start in (sequence..sequence + length).step_by(s.block_rows()) {
                let rows = s.block_rows().min(sequence + length - start);
                let first_key = self.first_key(past + start, sequence);
                blocks.push(Block {
                    sequence,
                    start,
                    rows,
                    first_key,
                    keys: past + start + rows - first_key,
                });
            }
            sequence += length;
        }
        blocks
    }

    /// The first key that the query at absolute position `position` sees, in the sequence that begins
    /// at `sequence`.
    fn first_key(&self, position: usize, sequence: usize) -> usize {
        let window = |window| (position + 1).saturating_sub(window);
        self.window
            .map_or(sequence, |size| window(size).max(sequence))
    }

    /// Softmax of the scores of a block; what a query cannot see becomes 0.
    fn probabilities<'a>(
        &self,
        s: Sizes,
        block: &Block,
        [q, k]: [Mat; 2],
        sink: Option<f32>,
        scratch: &'a mut Scratch,
    ) -> Shares<'a> {
        let p = product(&mut scratch.products, block, q, k);
        scratch.sinks.clear();
        let past = s.keys - s.queries;
        for (i, row) in p.chunks_exact_mut(block.keys).enumerate() {
            let position = past + block.start + i;
            let from = self.first_key(position, block.sequence) - block.first_key;
            let to = position + 1 - block.first_key;
            row[..from].fill(0.0);
            row[to..].fill(0.0);
            let row = &mut row[from..to];
            let share = wide!({ self.normalize(row, sink) });
            scratch.sinks.push(share);
        }
        Shares {
            keys: p,
            sinks: &scratch.sinks,
        }
    }
}

/// Where shares are computed.
#[derive(Default)]
struct Scratch {
    products: Vec<f32>,
    sinks: Vec<f32>,
}

/// What the queries of a block make of what they see.
struct Shares<'a> {
    /// Those of the keys of the block, for each query.
    keys: &'a [f32],
    /// That of the sink, for each query; 0 without one.
    sinks: &'a [f32],
}

/// The score of the sink of a head, if there are sinks.
fn sink_of(inputs: &[HostView], head: usize) -> Option<f32> {
    inputs.get(3).map(|sinks| sinks.data[head])
}

/// `rows · colsᵀ`, one value for each query of a block and each key that the block sees.
fn product<'a>(scratch: &'a mut Vec<f32>, block: &Block, rows: Mat, cols: Mat) -> &'a mut [f32] {
    let count = block.rows * block.keys;
    if scratch.len() < count {
        scratch.resize(count, 0.0);
    }
    let out = &mut scratch[..count];
    matmul(out, block.keys, rows, cols.t(), false);
    out
}

/// `rows` rows of a head in one of the tensors.
fn head(data: &[f32], (at, stride): (usize, usize), from: usize, rows: usize, d: usize) -> Mat<'_> {
    Mat::new(&data[at + from * stride..], rows, d, stride)
}

/// Adds rows of `d` values to a head of a tensor, from row `from` on.
fn add(out: &mut [f32], (at, stride): (usize, usize), from: usize, values: &[f32], d: usize) {
    for (row, values) in values.chunks_exact(d).enumerate() {
        let out = &mut out[at + (from + row) * stride..][..d];
        out.iter_mut().zip(values).for_each(|(out, v)| *out += v);
    }
}

impl HostOp for CausalAttention {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let s = Sizes::of(inputs);
        let [q, k, v] = [inputs[0].data, inputs[1].data, inputs[2].data];
        let width = s.heads * s.d;
        let one_head = |p: &mut Scratch, batch, block: &Block, h, out: &mut [f32]| {
            let q = head(q, s.query(batch, h), block.start, block.rows, s.d);
            let at = s.key(batch, h / s.group());
            let k = head(k, at, block.first_key, block.keys, s.d);
            let v = head(v, at, block.first_key, block.keys, s.d);
            let p = self.probabilities(s, block, [q, k], sink_of(inputs, h), p);
            let p = Mat::new(p.keys, block.rows, block.keys, block.keys);
            matmul(out, width, p, v, false);
        };
        let mut out = vec![0.0; q.len()];
        if s.queries == 1 {
            // One token after another: its heads are all that threads can share.
            let first = self.first_key(s.keys - 1, 0);
            let work = s.batch * (s.keys - first) * width;
            let tasks = (work / WORTH).clamp(1, rayon::current_num_threads());
            let kv_heads = s.kv_heads.div_ceil(tasks.div_ceil(s.batch.max(1)));
            let task = kv_heads * s.group() * s.d;
            team::pieces(&mut out, width, task, |start, out| {
                let (batch, head) = (start / width, start % width / s.d);
                let kv_head = head / s.group();
                let seen = Seen::new(k, v, s.key(batch, kv_head), first..s.keys);
                let sinks = inputs.get(3).map(|sinks| &sinks.data[head..]);
                let q = &q[start..][..out.len()];
                attend(q, seen.with_sinks(sinks), [s.group(), s.d], self, out);
            });
        } else {
            let blocks = self.blocks(s);
            // The outputs of a block of queries lie together.
            let mut parts = Vec::with_capacity(s.batch * blocks.len());
            let mut rest = &mut out[..];
            for batch in 0..s.batch {
                for block in &blocks {
                    let (part, behind) = rest.split_at_mut(block.rows * width);
                    parts.push((batch, block, part));
                    rest = behind;
                }
            }
            parts
                .into_par_iter()
                .for_each_init(Scratch::default, |p, (batch, block, out)| {
                    for h in 0..s.heads {
                        one_head(p, batch, block, h, &mut out[h * s.d..]);
                    }
                });
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
        let units = s.batch * s.kv_heads;
        // Few heads are split in two. Two sums can be added in either order, three could not.
        let parts = if units < 16 { 2 } else { 1 };
        let zeros = |view: &HostView| vec![0.0; view.data.len()];
        let out = Mutex::new(Gradients {
            dq: zeros(&inputs[0]),
            dk: zeros(&inputs[1]),
            dv: zeros(&inputs[2]),
        });
        // Each unit has some of its own: which thread is first does not matter.
        let mut sinks = vec![0.0; units * parts * s.group()];
        let of_units = sinks.par_chunks_mut(s.group()).enumerate();
        of_units.for_each(|(i, sinks)| {
            let unit = Unit {
                batch: i / parts / s.kv_heads,
                kv_head: i / parts % s.kv_heads,
                blocks: (i % parts, parts),
            };
            self.unit_gradients(s, inputs, grad.data, &unit, (&out, sinks));
        });
        let Gradients { dq, dk, dv } = out.into_inner().expect("no thread panicked");
        let sinks = inputs.get(3).map(|_| {
            let mut sum = vec![0.0; s.heads];
            for (i, part) in sinks.chunks_exact(s.group()).enumerate() {
                let first = i / parts % s.kv_heads * s.group();
                let heads = sum[first..].iter_mut().zip(part);
                heads.for_each(|(sum, part)| *sum += part);
            }
            Some(sum)
        });
        [Some(dq), Some(dk), Some(dv)]
            .into_iter()
            .chain(sinks)
            .collect()
    }
}

/// The gradients of the inputs, to which all threads add.
struct Gradients {
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

/// A kv head and the query heads that share it.
struct Unit {
    batch: usize,
    kv_head: usize,
    /// The first block of queries and the distance to the next.
    blocks: (usize, usize),
}

impl CausalAttention {
    /// With P the probabilities: `dV = Pᵀ·dO`, `dP = dO·Vᵀ`, `dS = P∘(dP − rowsum(P∘dP))·scale`,
    /// `dQ = dS·K`, `dK = dSᵀ·Q`; with a cap, `dS` is multiplied by its slope. The gradient of a sink is
    /// `−Σ p·rowsum(P∘dP)` with its shares p.
    fn unit_gradients(
        &self,
        s: Sizes,
        inputs: &[HostView],
        grad: &[f32],
        unit: &Unit,
        (out, sinks): (&Mutex<Gradients>, &mut [f32]),
    ) {
        let [q, k, v] = [inputs[0].data, inputs[1].data, inputs[2].data];
        let (mut dk, mut dv) = (vec![0.0; s.keys * s.d], vec![0.0; s.keys * s.d]);
        let (mut p, mut ds, mut dq) = (Scratch::default(), Vec::new(), Vec::new());
        let mut products = Vec::new();
        let key = s.key(unit.batch, unit.kv_head);
        let blocks = self.blocks(s);
        for block in blocks.iter().skip(unit.blocks.0).step_by(unit.blocks.1) {
            let k = head(k, key, block.first_key, block.keys, s.d);
            let v = head(v, key, block.first_key, block.keys, s.d);
            for (sink, h) in sinks.iter_mut().zip(unit.kv_head * s.group()..) {
                let query = s.query(unit.batch, h);
                let q = head(q, query, block.start, block.rows, s.d);
                let grad = head(grad, query, block.start, block.rows, s.d);
                let p = self.probabilities(s, block, [q, k], sink_of(inputs, h), &mut p);
                let p_mat = Mat::new(p.keys, block.rows, block.keys, block.keys);
                matmul(&mut dv[block.first_key * s.d..], s.d, p_mat.t(), grad, true);
                let ds = product(&mut ds, block, grad, v);
                *sink -= self.softmax_gradient(&p, ds, block.keys);
                if let Some(cap) = self.soft_cap {
                    let products = product(&mut products, block, q, k);
                    wide!({
                        for (ds, product) in ds.iter_mut().zip(products) {
                            *ds *= cap.slope(cap.value(*product * self.scale));
                        }
                    });
                }
                let ds = Mat::new(ds, block.rows, block.keys, block.keys);
                matmul(&mut dk[block.first_key * s.d..], s.d, ds.t(), q, true);
                dq.resize(block.rows * s.d, 0.0);
                matmul(&mut dq, s.d, ds, k, false);
                let mut out = out.lock().expect("no thread panicked");
                add(&mut out.dq, query, block.start, &dq, s.d);
            }
        }
        let mut out = out.lock().expect("no thread panicked");
        add(&mut out.dk, key, 0, &dk, s.d);
        add(&mut out.dv, key, 0, &dv, s.d);
    }

    /// Turns the gradients of the shares into those of the scores before scaling. What that of the sink is
    /// without its sign.
    fn softmax_gradient(&self, shares: &Shares, ds: &mut [f32], keys: usize) -> f32 {
        let mut sink = 0.0;
        wide!({
            let rows = ds
                .chunks_exact_mut(keys)
                .zip(shares.keys.chunks_exact(keys));
            for ((ds, p), share) in rows.zip(shares.sinks) {
                let sum = dot(ds, p);
                sink += share * sum;
                for (ds, p) in ds.iter_mut().zip(p) {
                    *ds = p * (*ds - sum) * self.scale;
                }
            }
        });
        sink
    }
}
