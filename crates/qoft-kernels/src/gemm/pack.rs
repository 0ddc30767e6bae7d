//! Panels of an operand, packed together so that they stay in the first-level cache.

use super::turn::turn_into;
use super::unit::{Pair, Unit};
use super::{Mat, MatMut};
use crate::scratch::with_scratch;
use crate::wide;

/// Columns of a packed panel of B: two of the widest vectors, so that it is one micro-panel where
/// vectors are widest.
pub(crate) const NC: usize = 32;
/// The length, in units, of the blocks of the inner dimension: as many rows of a panel take 24 KiB. It is the
/// same on all machines, since results depend on it.
pub(super) const KC: usize = 192;
/// Rows of a packed panel of B at most, two blocks: rows of weights are decoded along the inner dimension,
/// and the longer the pieces the faster.
pub(super) const STEP: usize = 2 * KC;

/// Elements of a packed panel of B.
pub(crate) const PANEL: usize = STEP * NC;

/// Columns `col..col + nc` of rows `row..row + kc` of `b`, row-major with [`NC`] columns.
pub(super) fn pack(b: Mat, [row, kc]: [usize; 2], [col, nc]: [usize; 2], panel: &mut [f32]) {
    let (panel, _) = panel.as_chunks_mut::<NC>();
    if b.col_stride == 1 {
        let from = &b.data[row * b.row_stride + col..];
        for (r, line) in panel[..kc].iter_mut().enumerate() {
            line[..nc].copy_from_slice(&from[r * b.row_stride..][..nc]);
        }
    } else {
        let turned = b.t().rows_of(col..col + nc).columns(row, kc);
        let panel = MatMut::new(panel.as_flattened_mut(), kc, nc, NC);
        // SAFETY: the panel is borrowed exclusively.
        unsafe { turn_into(turned, panel) }
    }
}

/// The same with pairs of rows as the rows of the panel.
pub(super) fn pack_pairs(b: Mat, [row, kc]: [usize; 2], [col, nc]: [usize; 2], panel: &mut [Pair]) {
    if b.col_stride == 1 {
        let (panel, _) = panel.as_chunks_mut::<NC>();
        let row_of = |r: usize| &b.data[(row + r) * b.row_stride + col..][..nc];
        for (i, line) in panel[..kc.div_ceil(2)].iter_mut().enumerate() {
            let first = row_of(2 * i);
            match 2 * i + 1 < kc {
                true => interleave(first, row_of(2 * i + 1), line),
                false => interleave(first, &[0.0; NC], line),
            }
        }
        return;
    }
    let turned = b.t().rows_of(col..col + nc).columns(row, kc);
    let units = kc.div_ceil(2);
    with_scratch(nc * units, |near| {
        let pairs: &mut [Pair] = bytemuck::cast_slice_mut(near);
        to_pairs(turned, pairs);
        // Pairs are turned over as other numbers of 32 bits are.
        let near = Mat::new(near, nc, units, units);
        let panel = MatMut::new(bytemuck::cast_slice_mut(panel), units, nc, NC);
        // SAFETY: the panel is borrowed exclusively.
        unsafe { turn_into(near, panel) }
    });
}

/// Pairs of numbers of two rows.
fn interleave(first: &[f32], second: &[f32], pairs: &mut [Pair; NC]) {
    wide!({
        for ((pair, &first), &second) in pairs.iter_mut().zip(first).zip(second) {
            *pair = rounded(first) | rounded(second) << 16;
        }
    });
}

/// Rows of pairs of the numbers that follow each other in rows, one after another; if there is an odd one,
/// it is beside a zero. Columns of `from` lie next to each other.
pub(crate) fn to_pairs(from: Mat, pairs: &mut [Pair]) {
    let units = from.cols.div_ceil(Pair::NUMBERS);
    let rows = from.data.chunks(from.row_stride.max(1)).take(from.rows);
    for (row, pairs) in rows.zip(pairs.chunks_exact_mut(units.max(1))) {
        let (row, last) = row[..from.cols].as_chunks::<2>();
        wide!({
            for (pair, &[first, second]) in pairs.iter_mut().zip(row) {
                *pair = rounded(first) | rounded(second) << 16;
            }
        });
        if let [last] = last {
            pairs[units - 1] = rounded(*last);
        }
    }
}

/// The bits of a number in bfloat16, to nearest even; of no number, one that stays none.
#[inline(always)]
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
    if value.is_nan() {
        bits >> 16 | 0x40
    } else {
        nearest
    }
}

/// A copy of at most [`STEP`] columns of `a`, whose rows follow each other; columns of `a` lie next to each
/// other.
pub(super) fn pack_rows<'a, E: Unit>(a: Mat<E>, near: &'a mut [E]) -> Mat<'a, E> {
    for (r, line) in near.chunks_exact_mut(STEP).take(a.rows).enumerate() {
        line[..a.cols].copy_from_slice(&a.data[r * a.row_stride..][..a.cols]);
    }
    Mat::new(near, a.rows, a.cols, STEP)
}
