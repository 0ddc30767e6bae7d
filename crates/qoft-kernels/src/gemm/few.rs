//! Products of few rows with a matrix that is decoded meanwhile: each of its values meets so few others
//! that it is not worth packing.

use std::ops::Range;

use super::kernel::MacroKernel;
use super::pack::KC;
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
}

impl Tiles for Mat<'_> {
    fn tile<'a>(&'a self, rows: Range<usize>, cols: Range<usize>, _: &'a mut [f32]) -> Mat<'a> {
        self.rows_of(rows).columns(cols.start, cols.len())
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
pub(crate) unsafe fn few_rows(
    c: MatMut,
    x: &Turned,
    rows: Range<usize>,
    w: &(impl Tiles + ?Sized),
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
                let w = w.tile(here.clone(), cols.clone(), scratch);
                for at in cols.clone().step_by(KC) {
                    let before = accumulate || at > 0;
                    let kernel = MacroKernel {
                        mc: here.len(),
                        kc: KC.min(cols.end - at),
                        nc: width,
                        a: w.data[at - col..].as_ptr(),
                        a_row_stride: w.row_stride,
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

/// Columns `cols` of `C = X · W`.
///
/// # Safety
/// As [`super::matmul_into`], for these columns of C.
pub(crate) unsafe fn few_rows_transposed(
    c: MatMut,
    x: Mat,
    cols: Range<usize>,
    w: &(impl Tiles + ?Sized),
) {
    with_scratch(2 * KC * WIDE, |scratch| {
        let (scratch, near) = scratch.split_at_mut(KC * WIDE);
        for col in cols.clone().step_by(WIDE) {
            let here = col..(col + WIDE).min(cols.end);
            let c = c.columns(here.start, here.len());
            for k in (0..x.cols).step_by(KC) {
                let kc = KC.min(x.cols - k);
                let mut w = w.tile(k..k + kc, here.clone(), scratch);
                if is_far(w.row_stride) {
                    for (r, line) in near.chunks_exact_mut(here.len()).take(kc).enumerate() {
                        line.copy_from_slice(&w.data[r * w.row_stride..][..line.len()]);
                    }
                    w = Mat::new(near, kc, here.len(), here.len());
                }
                // SAFETY: the caller vouches for these columns of C.
                unsafe { super::macro_kernel(c, x.columns(k, kc), w, k > 0) }
            }
        }
    });
}
