//! Attention of one query, as of the last token of a sequence.

use std::ops::Range;

use crate::scratch::with_scratch;
use crate::simd::wide;
use crate::vector::{dot, exp_sum, max};

/// Keys or values of a head that the query sees: `d` numbers at the start of each `stride`.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    data: &'a [f32],
    stride: usize,
    count: usize,
}

impl<'a> Seen<'a> {
    /// Of a head whose first key or value lies at `at`.
    pub fn new(data: &'a [f32], (at, stride): (usize, usize), keys: Range<usize>) -> Self {
        Self {
            data: &data[at + keys.start * stride..],
            stride,
            count: keys.len(),
        }
    }

    #[inline(always)]
    fn rows(self, d: usize) -> impl Iterator<Item = &'a [f32]> {
        let rows = self.data.chunks(self.stride.max(1)).take(self.count);
        rows.map(move |row| &row[..d])
    }
}

/// The output of one head: `softmax(q · kᵀ · scale) · v`.
pub(super) fn attend(q: &[f32], k: Seen, v: Seen, scale: f32, out: &mut [f32]) {
    let d = out.len();
    with_scratch(k.count, |p| {
        wide!({
            for (score, key) in p.iter_mut().zip(k.rows(d)) {
                *score = dot(q, key);
            }
            let shift = max(p) * scale;
            let factor = 1.0 / exp_sum(p, scale, shift);
            out.fill(0.0);
            for (p, value) in p.iter().zip(v.rows(d)) {
                let p = p * factor;
                for (out, value) in out.iter_mut().zip(value) {
                    *out += p * value;
                }
            }
        });
    });
}
