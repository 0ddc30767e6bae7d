//! Panels of an operand, packed together so that they stay in the first-level cache.

use super::turn::turn_into;
use super::unit::Unit;
use super::{Mat, MatMut};

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

/// A copy of at most [`STEP`] columns of `a`, whose rows follow each other; columns of `a` lie next to each
/// other.
pub(super) fn pack_rows<'a, E: Unit>(a: Mat<E>, near: &'a mut [E]) -> Mat<'a, E> {
    for (r, line) in near.chunks_exact_mut(STEP).take(a.rows).enumerate() {
        line[..a.cols].copy_from_slice(&a.data[r * a.row_stride..][..a.cols]);
    }
    Mat::new(near, a.rows, a.cols, STEP)
}
