//! Attention of one query, as of the last token of a sequence.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::CausalAttention;
use crate::scratch::with_scratch;
use crate::simd::arch;
use crate::vector::dot;

/// Keys and values of some neighbouring heads, `stride` numbers from one token to the next.
///
/// They come from memory, so they are read as they lie there: one token with all its heads after
/// another.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    k: &'a [f32],
    v: &'a [f32],
    stride: usize,
    count: usize,
    /// One for each of the heads of the query.
    sinks: Option<&'a [f32]>,
}

impl<'a> Seen<'a> {
    /// Those of tokens `keys`; the first head of token 0 lies at `at`.
    pub fn new(
        k: &'a [f32],
        v: &'a [f32],
        (at, stride): (usize, usize),
        keys: Range<usize>,
    ) -> Self {
        let start = at + keys.start * stride;
        Self {
            k: &k[start..],
            v: &v[start..],
            stride,
            count: keys.len(),
            sinks: None,
        }
    }

    /// With the sinks of the query's heads.
    pub fn with_sinks(self, sinks: Option<&'a [f32]>) -> Self {
        Self { sinks, ..self }
    }
}

/// The outputs of heads with `d` numbers, of which `group` each share a kv head:
/// `softmax(q · kᵀ · scale) · v`.
pub(super) fn attend(
    q: &[f32],
    seen: Seen,
    [group, d]: [usize; 2],
    op: &CausalAttention,
    out: &mut [f32],
) {
    with_scratch(q.len() / d * seen.count, |p| {
        arch().dispatch(Heads {
            q,
            seen,
            group,
            d,
            op,
            p,
            out,
        });
    });
}

struct Heads<'a> {
    q: &'a [f32],
    seen: Seen<'a>,
    group: usize,
    d: usize,
    op: &'a CausalAttention,
    p: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for Heads<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            q, seen, p, out, d, ..
        } = self;
        let (count, shared) = (seen.count, self.group * d);
        let width = q.len() / self.group;
        let rows = |data| <[f32]>::chunks(data, seen.stride).take(count);
        for (t, row) in rows(seen.k).enumerate() {
            let heads = row[..width].chunks_exact(d).zip(q.chunks_exact(shared));
            let heads = heads.flat_map(|(k, q)| q.chunks_exact(d).map(move |q| (q, k)));
            for (p, (q, k)) in p.chunks_exact_mut(count).zip(heads) {
                p[t] = product(simd, q, k);
            }
        }
        for (head, p) in p.chunks_exact_mut(count).enumerate() {
            self.op.normalize(p, seen.sinks.map(|sinks| sinks[head]));
        }
        out.fill(0.0);
        for (t, row) in rows(seen.v).enumerate() {
            let mut p = p.chunks_exact(count);
            let heads = row[..width].chunks_exact(d);
            for (v, out) in heads.zip(out.chunks_exact_mut(shared)) {
                for (out, p) in out.chunks_exact_mut(d).zip(p.by_ref()) {
                    add(simd, out, p[t], v);
                }
            }
        }
    }
}

/// `Σ a·b`.
#[inline(always)]
fn product<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_tail), (b, b_tail)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let mut sum = simd.splat_f32s(0.0);
    for (&a, &b) in a.iter().zip(b) {
        sum = simd.mul_add_f32s(a, b, sum);
    }
    simd.reduce_sum_f32s(sum) + dot(a_tail, b_tail)
}

/// `out += factor · values`.
#[inline(always)]
fn add<S: Simd>(simd: S, out: &mut [f32], factor: f32, values: &[f32]) {
    let (out, out_tail) = S::as_mut_simd_f32s(out);
    let (values, tail) = S::as_simd_f32s(values);
    let all = simd.splat_f32s(factor);
    for (out, &value) in out.iter_mut().zip(values) {
        *out = simd.mul_add_f32s(all, value, *out);
    }
    for (out, value) in out_tail.iter_mut().zip(tail) {
        *out += factor * value;
    }
}
