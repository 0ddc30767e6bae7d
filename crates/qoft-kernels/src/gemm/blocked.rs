//! Products of many rows: the loops around the macro-kernel.

use std::ops::Range;

use super::ahead::Ahead;
use super::kernel::MacroKernel;
use super::operand::Operand;
use super::pack::{KC, NC, PANEL, STEP, pack_rows};
use super::unit::Unit;
use super::{Mat, MatMut, is_far};
use crate::scratch::with_scratch;

/// Rows of A that meet a packed block of B at most: as many rows of a block of the inner dimension take
/// 400 KiB, which fit a level-2 cache of 1 MiB beside the rest.
const MC: usize = 528;
/// Rows of a micro-tile where there are most registers: blocks are multiples of it.
const MR: usize = 12;
/// Columns whose sums are kept at once where rows of A are packed, which all of them share.
const FAR_COLUMNS: usize = 1024;

/// A matrix B that is packed piece by piece. Its rows are counted in units.
pub(crate) trait Columns<E: Operand> {
    /// How many columns it likes to pack at once, a multiple of [`NC`].
    fn width(&self) -> usize;

    /// Packs a block of at most [`STEP`] rows into panels of [`NC`] columns: element `(i, j)` of the block
    /// goes to `panels[j / NC * PANEL + i * NC + j % NC]`.
    fn pack(&self, rows: Range<usize>, cols: Range<usize>, panels: &mut [E]);

    /// What of memory [`Self::pack`] reads for them.
    fn ahead(&self, rows: Range<usize>, cols: Range<usize>) -> Ahead;
}

/// The numbers of some units, if there are `length` numbers.
pub(crate) fn numbers<E: Unit>(units: Range<usize>, length: usize) -> Range<usize> {
    let [start, end] = [units.start, units.end].map(|at| (at * E::NUMBERS).min(length));
    start..end
}

impl<E: Operand> Columns<E> for Mat<'_> {
    fn width(&self) -> usize {
        3 * NC
    }

    fn pack(&self, rows: Range<usize>, cols: Range<usize>, panels: &mut [E]) {
        let rows = numbers::<E>(rows, self.rows);
        let starts = cols.clone().step_by(NC);
        for (col, panel) in starts.zip(panels.chunks_exact_mut(PANEL)) {
            let nc = NC.min(cols.end - col);
            E::pack(*self, [rows.start, rows.len()], [col, nc], panel);
        }
    }

    fn ahead(&self, rows: Range<usize>, cols: Range<usize>) -> Ahead {
        let rows = numbers::<E>(rows, self.rows);
        Ahead::of(match self.col_stride {
            1 => self.rows_of(rows).columns(cols.start, cols.len()),
            _ => self.t().rows_of(cols).columns(rows.start, rows.len()),
        })
    }
}

/// `C = A · B`, or `C += A · B` with `accumulate`, for the columns of B from `first` on.
///
/// As in the loops of Goto and van de Geijn, blocks of B are packed into panels, of which one after another
/// stays in the first-level cache while all rows of A meet it. Two things are otherwise. Rows of A are only
/// packed where they would drive each other out of the cache: elsewhere a copy costs more than it gives,
/// since a micro-kernel reads whole cache lines of few rows, one after another. And sums stay in a buffer
/// of their own until the last block of the inner dimension: rows of C may be far apart as well, and each
/// element of it is written once.
///
/// # Safety
/// As [`super::matmul_into`].
pub(crate) unsafe fn blocked<E: Operand>(
    c: MatMut,
    a: Mat<E>,
    b: &(impl Columns<E> + ?Sized),
    first: usize,
    accumulate: bool,
) {
    let mc = even(c.rows, MC, MR);
    let pack_a = a.col_stride == 1 && is_far(a.row_stride);
    let width = b.width();
    let jc = even(c.cols, if pack_a { FAR_COLUMNS } else { width }, NC);
    let size_a = if pack_a { mc * STEP } else { 0 };
    let size_b = width.min(jc) / NC * PANEL;
    let depth = a.cols;
    let size_c = if a.cols > KC { mc * jc } else { 0 };
    with_scratch(size_a + size_b + size_c, |scratch| {
        let (units, sums) = scratch.split_at_mut(size_a + size_b);
        let (near_a, near_b) = bytemuck::cast_slice_mut(units).split_at_mut(size_a);
        for (row, j) in pairs((c.rows, mc), (c.cols, jc)) {
            let rows = row..(row + mc).min(c.rows);
            let mut block = Block {
                c: c.rows_of(rows.clone()),
                a: a.rows_of(rows),
                first_sum: j,
                sums,
                accumulate,
            };
            let end = (j + jc).min(c.cols);
            for step in (0..a.cols).step_by(STEP) {
                let step = step..(step + STEP).min(a.cols);
                let mut a = block.a.columns(step.start, step.len());
                if pack_a {
                    a = pack_rows(a, near_a);
                }
                for col in (j..end).step_by(width) {
                    let cols = col..(col + width).min(end);
                    let of_b = first + cols.start..first + cols.end;
                    b.pack(step.clone(), of_b, near_b);
                    // What is packed next, if there is something: while one panel is multiplied, a part of it
                    // is asked for.
                    let (rows, after) = match () {
                        () if cols.end < end => (step.clone(), cols.end..end),
                        () if step.end < depth => (step.end..depth, j..end),
                        () if end < c.cols => (0..depth, end..c.cols),
                        () => (0..0, 0..0),
                    };
                    let rows = rows.start..rows.end.min(rows.start + STEP);
                    let after = after.start..after.end.min(after.start + width);
                    let ahead = match rows.is_empty() {
                        true => Ahead::NOTHING,
                        false => b.ahead(rows, first + after.start..first + after.end),
                    };
                    let panels = cols.len().div_ceil(NC);
                    let starts = cols.clone().step_by(NC);
                    for (i, (col, panel)) in starts.zip(near_b.chunks_exact(PANEL)).enumerate() {
                        let nc = NC.min(cols.end - col);
                        let ahead = ahead.part(i, panels);
                        // SAFETY: the caller vouches for C.
                        unsafe { block.add(a, panel, step.start, [col, nc], ahead) }
                    }
                }
            }
        }
    });
}

/// The size of parts of at most `most` that are as large as each other, a multiple of `unit`.
fn even(length: usize, most: usize, unit: usize) -> usize {
    let parts = length.div_ceil(most).max(1);
    length.div_ceil(parts).next_multiple_of(unit)
}

/// Where the parts of rows and columns begin, given with the sizes of parts.
fn pairs(
    (rows, mc): (usize, usize),
    (cols, jc): (usize, usize),
) -> impl Iterator<Item = (usize, usize)> {
    let starts = (0..rows).step_by(mc);
    starts.flat_map(move |row| (0..cols).step_by(jc).map(move |col| (row, col)))
}

/// Some rows of the product.
struct Block<'a, E> {
    c: MatMut,
    a: Mat<'a, E>,
    /// The column of C to which the first sums belong.
    first_sum: usize,
    /// The sums so far, one panel of [`NC`] columns behind the other.
    sums: &'a mut [f32],
    accumulate: bool,
}

impl<E: Operand> Block<'_, E> {
    /// Adds the products of `a`, the columns of A from `at` on, with a panel of B that begins at column
    /// `col` and has `nc` columns, while what is `ahead` is asked for.
    ///
    /// # Safety
    /// As [`super::matmul_into`].
    unsafe fn add(
        &mut self,
        a: Mat<E>,
        panel: &[E],
        at: usize,
        [col, nc]: [usize; 2],
        ahead: Ahead,
    ) {
        let c = self.c.columns(col, nc);
        let far = (c.ptr, c.row_stride);
        let near = self.sums.get_mut((col - self.first_sum) * c.rows..);
        let near = (near.unwrap_or_default().as_mut_ptr(), NC);
        for k in (0..a.cols).step_by(KC) {
            let kc = KC.min(a.cols - k);
            let before = match at + k {
                0 if self.accumulate => far,
                0 => (std::ptr::null_mut(), 0),
                _ => near,
            };
            let is_last = at + k + kc == self.a.cols;
            let after = if is_last { far } else { near };
            let kernel = MacroKernel {
                mc: c.rows,
                kc,
                nc,
                a: a.columns(k, kc).data.as_ptr(),
                a_row_stride: a.row_stride,
                a_col_stride: a.col_stride,
                b: panel[k * NC..].as_ptr(),
                b_row_stride: NC,
                before: before.0,
                before_row_stride: before.1,
                c: after.0,
                c_row_stride: after.1,
                ahead: ahead.part(k / KC, a.cols.div_ceil(KC)),
            };
            // SAFETY: the operands are as large, the sums hold a panel of as many rows, and the caller
            // vouches for C.
            unsafe { kernel.run() }
        }
    }
}
