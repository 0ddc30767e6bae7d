//! The rotation of one row, as of the last token of a sequence: bound by reading the blocks.

use pulp::{Simd, WithSimd};

use crate::simd::{arch, prefetch};
use crate::team;

/// Bytes that are asked for ahead of those that are read.
const AHEAD: usize = 2048;
/// Vectors of an output that are summed up beside each other.
const SUMS: usize = 2;

/// `x · blockdiag(R)` for one row.
pub(super) fn turn(x: &[f32], blocks: &[f32], [stored, size]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let count = (x.len() / size).div_ceil(2 * rayon::current_num_threads());
    team::pieces(&mut out, x.len(), count * size, |start, out| {
        let first = start / size;
        let x = &x[start..][..out.len()];
        let parts = x.chunks_exact(size).zip(out.chunks_exact_mut(size));
        arch().dispatch(Turn {
            parts: parts.enumerate().map(|(block, (x, out))| {
                let at = (first + block) % stored * size * size;
                (x, &blocks[at..][..size * size], out)
            }),
        });
    });
    out
}

/// Products of parts of a row with blocks.
struct Turn<P> {
    parts: P,
}

impl<'a, P: Iterator<Item = (&'a [f32], &'a [f32], &'a mut [f32])>> WithSimd for Turn<P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (x, block, out) in self.parts {
            multiply(simd, x, block, out);
        }
    }
}

/// `x · R` for a block, one chain of sums for each number.
#[inline(always)]
fn multiply<S: Simd>(simd: S, x: &[f32], block: &[f32], out: &mut [f32]) {
    let size = x.len();
    let (wide, rest) = S::as_mut_simd_f32s(out);
    let first_rest = size - rest.len();
    let mut at = 0;
    for out in wide.chunks_mut(SUMS) {
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        for (&x, row) in x.iter().zip(block.chunks_exact(size)) {
            let (row, _) = S::as_simd_f32s(&row[at..]);
            let x = simd.splat_f32s(x);
            for (sum, value) in sums.iter_mut().zip(&row[..out.len()]) {
                prefetch(value, AHEAD);
                *sum = simd.mul_add_f32s(x, *value, *sum);
            }
        }
        out.copy_from_slice(&sums[..out.len()]);
        at += SUMS * S::F32_LANES;
    }
    for (i, out) in rest.iter_mut().enumerate() {
        let column = block[first_rest + i..].iter().step_by(size);
        *out = x
            .iter()
            .zip(column)
            .fold(0.0, |sum, (x, r)| x.mul_add(*r, sum));
    }
}
