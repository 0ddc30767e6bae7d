//! Products of few rows with a matrix that is decoded meanwhile: each of its values meets so few others
//! that it is not worth packing.

use std::ops::Range;

use super::ahead::Ahead;
use super::kernel::MacroKernel;
use super::pack::{KC, NC};
use super::turn::{turn, turn_into};
use super::{Mat, MatMut, is_far};
use crate::scratch::with_scratch;

/// Rows of activations that are few.
pub(crate) const FEW_ROWS: usize = 128;
/// Rows of W that are decoded at once where its rows are outputs.
const DOWN: usize = 24;
/// Columns of W that are decoded at once there.
const ACROSS: usize = 4 * KC;
/// Columns of W that are decoded at once where they are outputs. No multiple of 64, so that rows begin in
/// all places of a cache.
const WIDE: usize = 11 * 32;
/// Rows of x beside each other are a multiple, as many as the widest vectors have numbers, or half of it.
const SIDE: usize = 16;

/// A matrix W that is decoded tile by tile.
pub(crate) trait Tiles {
    /// Some rows and columns, which may be put into `scratch`; columns lie next to each other.
    fn tile<'a>(
        &'a self,
        rows: Range<usize>,
        cols: Range<usize>,
        scratch: &'a mut [f32],
    ) -> Mat<'a>;

    /// What of memory [`Self::tile`] reads for them, as far as they are inside of the matrix.
    fn ahead(&self, rows: Range<usize>, cols: Range<usize>) -> Ahead;
}

/// A matrix that is multiplied next, and the first of its rows or columns that is needed.
pub(crate) type Next<'a, W> = Option<(&'a W, usize)>;

impl Tiles for Mat<'_> {
    fn tile<'a>(&'a self, rows: Range<usize>, cols: Range<usize>, _: &'a mut [f32]) -> Mat<'a> {
        self.rows_of(rows).columns(cols.start, cols.len())
    }

    fn ahead(&self, rows: Range<usize>, cols: Range<usize>) -> Ahead {
        let [rows, cols] = [(rows, self.rows), (cols, self.cols)]
            .map(|(range, most)| range.start.min(most)..range.end.min(most));
        match rows.is_empty() || cols.is_empty() {
            true => Ahead::NOTHING,
            false => Ahead::of(self.rows_of(rows).columns(cols.start, cols.len())),
        }
    }
}

/// Rows of activations, turned over: `[columns, width]`, where columns behind the last row are zeros.
pub(crate) struct Turned<'a> {
    values: &'a [f32],
    width: usize,
}

/// How wide rows of x are beside each other.
fn width(rows: usize) -> usize {
    let half = SIDE / 2;
    rows.next_multiple_of(if rows <= half { half } else { SIDE })
}

impl<'a> Turned<'a> {
    /// How many values [`Self::new`] needs for `rows` × `cols` activations.
    pub(crate) fn length(rows: usize, cols: usize) -> usize {
        cols * width(rows)
    }

    /// Turns over the rows of `x`.
    pub(crate) fn new(x: Mat, values: &'a mut [f32]) -> Self {
        let width = width(x.rows);
        turn(x, width, values);
        Self { values, width }
    }
}

/// Columns of `C = X · Wᵀ`, or of `C += X · Wᵀ` with `accumulate`: those of the rows `rows` of W.
///
/// It is computed as `Cᵀ = W · Xᵀ`: rows of W are read as they were decoded, and only the sums are turned
/// over. They are the same numbers all the same.
///
/// # Safety
/// As [`super::matmul_into`], for these columns of C.
pub(crate) unsafe fn few_rows<W: Tiles + ?Sized>(
    c: MatMut,
    x: &Turned,
    rows: Range<usize>,
    w: &W,
    next: Next<W>,
    accumulate: bool,
) {
    let (width, k) = (x.width, x.values.len() / x.width);
    with_scratch(DOWN * (ACROSS + width), |scratch| {
        let (scratch, sums) = scratch.split_at_mut(DOWN * ACROSS);
        for row in rows.clone().step_by(DOWN) {
            let here = row..(row + DOWN).min(rows.end);
            let c = c.columns(here.start, here.len());
            if accumulate {
                // SAFETY: the caller vouches for these columns of C, which have values.
                let before = unsafe { c.values() };
                turn(before, width, &mut sums[..here.len() * width]);
            }
            for col in (0..k).step_by(ACROSS) {
                let cols = col..(col + ACROSS).min(k);
                let decoded = scratch.as_ptr();
                let tile = w.tile(here.clone(), cols.clone(), scratch);
                let in_place = tile.data.as_ptr() != decoded;
                for at in cols.clone().step_by(KC) {
                    let before = accumulate || at > 0;
                    // What lies at the same place of the tile that comes next.
                    let at_next = at - col..at - col + KC;
                    let ahead = match next {
                        // Long rows that are read in place, the processor follows by itself.
                        _ if in_place && k > ACROSS => Ahead::NOTHING,
                        _ if cols.end < k => w.ahead(here.clone(), at + ACROSS..at + ACROSS + KC),
                        _ if here.end < rows.end => {
                            let below = here.end..(here.end + DOWN).min(rows.end);
                            w.ahead(below, at_next)
                        }
                        Some((next, row)) => next.ahead(row..row + DOWN, at_next),
                        None => Ahead::NOTHING,
                    };
                    let kernel = MacroKernel {
                        mc: here.len(),
                        kc: KC.min(cols.end - at),
                        nc: width,
                        a: tile.data[at - col..].as_ptr(),
                        a_row_stride: tile.row_stride,
                        a_col_stride: 1,
                        b: x.values[at * width..].as_ptr(),
                        b_row_stride: width,
                        before: if before {
                            sums.as_ptr()
                        } else {
                            std::ptr::null()
                        },
                        before_row_stride: width,
                        c: sums.as_mut_ptr(),
                        c_row_stride: width,
                        ahead,
                    };
                    // SAFETY: both operands and the sums are as large.
                    unsafe { kernel.run() }
                }
            }
            let sums = Mat::new(sums, here.len(), c.rows, width);
            // SAFETY: the caller vouches for these columns of C.
            unsafe { turn_into(sums, c) }
        }
    });
}

/// Columns `cols` of `C = X · W`, or of `C += X · W` with `accumulate`.
///
/// # Safety
/// As [`super::matmul_into`], for these columns of C.
pub(crate) unsafe fn few_rows_transposed<W: Tiles + ?Sized>(
    c: MatMut,
    x: Mat,
    cols: Range<usize>,
    w: &W,
    next: Next<W>,
    accumulate: bool,
) {
    with_scratch(KC * (WIDE + NC), |scratch| {
        let (scratch, near) = scratch.split_at_mut(KC * WIDE);
        for col in cols.clone().step_by(WIDE) {
            let here = col..(col + WIDE).min(cols.end);
            for k in (0..x.cols).step_by(KC) {
                let kc = KC.min(x.cols - k);
                // What is multiplied after this tile, so many columns of it.
                let after = |width: usize| {
                    let rows = k + kc..(k + kc + KC).min(x.cols);
                    let below = 0..KC.min(x.cols);
                    match next {
                        _ if !rows.is_empty() => w.ahead(rows, here.start..here.start + width),
                        _ if here.end < cols.end => w.ahead(below, here.end..here.end + width),
                        Some((next, col)) => next.ahead(below, col..col + width),
                        None => Ahead::NOTHING,
                    }
                };
                let decoded = scratch.as_ptr();
                let tile = w.tile(k..k + kc, here.clone(), scratch);
                let in_place = tile.data.as_ptr() != decoded;
                let panels = here.len().div_ceil(NC);
                for panel in 0..panels {
                    let first = panel * NC;
                    let width = NC.min(here.len() - first);
                    let mut b = tile.columns(first, width);
                    let ahead = match () {
                        () if !in_place => after(WIDE).part(panel, panels),
                        () if panel + 1 == panels => after(NC),
                        () => {
                            let cols = here.start + first + NC..here.end;
                            w.ahead(k..k + kc, cols.start..cols.end.min(cols.start + NC))
                        }
                    };
                    if is_far(b.row_stride) {
                        for (r, line) in near.chunks_exact_mut(width).take(kc).enumerate() {
                            line.copy_from_slice(&b.data[r * b.row_stride..][..width]);
                        }
                        b = Mat::new(near, kc, width, width);
                    }
                    let c = c.columns(here.start + first, width);
                    // SAFETY: the caller vouches for these columns of C.
                    unsafe {
                        let accumulate = accumulate || k > 0;
                        super::macro_kernel(c, x.columns(k, kc), b, accumulate, ahead);
                    }
                }
            }
        }
    });
}
