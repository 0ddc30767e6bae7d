//! The matrix product of strided operands on one thread.
//!
//! Products of `f32` are our own: their operands are panels that were just decoded, or rotations,
//! and lie in a cache already. They have the structure and the names of Goto and van de Geijn's
//! "Anatomy of high-performance matrix multiplication": a macro-kernel on blocks of `mc × kc` and
//! `kc × nc`, cut into micro-panels of `nr` columns and micro-tiles of `mr × nr`, which micro-kernels
//! keep in registers. Those of `f64` are the `gemm` crate's.

mod ahead;
mod blocked;
mod few;
mod kernel;
mod operand;
mod pack;
mod pairs;
mod turn;
mod unit;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

pub(crate) use ahead::Ahead;
pub(crate) use blocked::{Columns, blocked, numbers};
pub(crate) use few::{FEW_ROWS, Tiles, Turned, few_rows, few_rows_transposed};
use kernel::MacroKernel;
pub(crate) use operand::Operand;
use pack::KC;
pub(crate) use pack::{NC, PANEL};
pub(crate) use pairs::to_pairs;
pub(crate) use unit::{Pair, Unit, multiplies_pairs};

use crate::scratch::with_scratch;

/// The numbers of a product: `f32` and `f64`.
pub trait Real: private::Product + Copy + Send + Sync + 'static {}

impl Real for f32 {}
impl Real for f64 {}

mod private {
    use super::{Mat, MatMut};

    /// The product is only made for our types.
    pub trait Product: Sized {
        /// `dst = lhs · rhs`, or `dst += lhs · rhs` with `accumulate`; shapes agree.
        ///
        /// # Safety
        /// The buffer behind `dst` is alive, and nobody else accesses its elements meanwhile.
        unsafe fn product(dst: MatMut<Self>, lhs: Mat<Self>, rhs: Mat<Self>, accumulate: bool);
    }
}

/// A read-only strided matrix.
#[derive(Debug, Clone, Copy)]
pub struct Mat<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Copy> Mat<'a, T> {
    /// Rows `row_stride` elements apart, columns next to each other.
    ///
    /// # Panics
    /// If `data` ends before the last element.
    pub fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(holds(data.len(), rows, cols, row_stride));
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// The transposed view.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// How many rows it has.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// How many columns it has.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// Some rows.
    pub(crate) fn rows_of(self, rows: Range<usize>) -> Self {
        self.t().columns(rows.start, rows.len()).t()
    }

    /// Columns `start..start + cols`.
    /// The values of its first row, if they lie beside each other.
    pub(crate) fn first_row(&self) -> &'a [T] {
        assert_eq!(self.col_stride, 1, "values of a row lie beside each other");
        &self.data[..self.cols]
    }

    fn columns(self, start: usize, cols: usize) -> Self {
        let data = &self.data[start * self.col_stride..];
        Self { data, cols, ..self }
    }
}

/// Whether so many elements are enough for a matrix.
fn holds(length: usize, rows: usize, cols: usize, row_stride: usize) -> bool {
    let Some(before) = rows.checked_sub(1) else {
        return true;
    };
    let needed = before.checked_mul(row_stride);
    let needed = needed.and_then(|before| before.checked_add(cols));
    cols == 0 || needed.is_some_and(|needed| length >= needed)
}

/// A strided matrix to write to, given by pointer so that threads can own column bands of one
/// buffer.
#[derive(Clone, Copy)]
pub struct MatMut<T = f32> {
    ptr: *mut T,
    rows: usize,
    cols: usize,
    row_stride: usize,
}

// SAFETY: it is a pointer whose elements only the unsafe `matmul_into` touches; that nobody else
// does so meanwhile is promised there.
unsafe impl<T: Send> Send for MatMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for MatMut<T> {}

impl<T> MatMut<T> {
    /// The whole of `data`, `rows` × `cols`, rows `row_stride` apart.
    pub fn new(data: &mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(holds(data.len(), rows, cols, row_stride));
        Self {
            ptr: data.as_mut_ptr(),
            rows,
            cols,
            row_stride,
        }
    }

    /// The unused memory of `data`, which has room for `rows` × `cols` elements.
    pub fn spare(data: &mut Vec<T>, rows: usize, cols: usize) -> Self {
        let data = data.spare_capacity_mut();
        assert!(holds(data.len(), rows, cols, cols));
        Self {
            ptr: data.as_mut_ptr().cast(),
            rows,
            cols,
            row_stride: cols,
        }
    }

    /// Fills the matrix with zeros.
    ///
    /// # Safety
    /// As [`matmul_into`].
    unsafe fn fill_zero(self) {
        for row in 0..self.rows {
            // SAFETY: the row is inside the matrix; 0.0 is all zero bits.
            unsafe {
                self.ptr
                    .add(row * self.row_stride)
                    .write_bytes(0, self.cols)
            }
        }
    }

    /// Its first row, of zeros.
    ///
    /// # Safety
    /// As [`matmul_into`], and nobody else reaches the row meanwhile.
    pub(crate) unsafe fn zeroed_row<'a>(self) -> &'a mut [T] {
        let Self { ptr, cols, .. } = self;
        // SAFETY: the caller vouches for the row, which has values then.
        unsafe {
            Self { rows: 1, ..self }.fill_zero();
            std::slice::from_raw_parts_mut(ptr, cols)
        }
    }

    /// What it holds.
    ///
    /// # Safety
    /// The buffer is alive as long as the view, all elements have values, and nobody writes to what lies
    /// between the first and the last of them meanwhile.
    unsafe fn values<'a>(self) -> Mat<'a, T> {
        let before = self.rows.saturating_sub(1) * self.row_stride;
        // SAFETY: the elements from the first to the last one are inside of the buffer.
        let data = unsafe { std::slice::from_raw_parts(self.ptr, before + self.cols) };
        Mat {
            data,
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            col_stride: 1,
        }
    }

    /// How many rows it has.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// How many columns it has.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// Some rows of this matrix.
    pub fn rows_of(self, rows: Range<usize>) -> Self {
        assert!(rows.start < rows.end && rows.end <= self.rows);
        // SAFETY: the first element of the rows lies inside the matrix.
        let ptr = unsafe { self.ptr.add(rows.start * self.row_stride) };
        Self {
            ptr,
            rows: rows.len(),
            ..self
        }
    }

    /// Columns `start..start + cols` of this matrix.
    pub fn columns(self, start: usize, cols: usize) -> Self {
        assert!(start + cols <= self.cols);
        // SAFETY: the first element of the band lies inside the matrix.
        let ptr = unsafe { self.ptr.add(start) };
        Self { ptr, cols, ..self }
    }
}

/// Whether rows are so far apart that they drive each other out of a cache: as many of them as a
/// micro-tile has go to the same few places of the first-level cache.
fn is_far(row_stride: usize) -> bool {
    row_stride.is_multiple_of(1024)
}

/// `dst = lhs · rhs`, or `dst += lhs · rhs` with `accumulate`.
///
/// # Safety
/// The buffer behind `dst` is alive, and nobody else reads or writes its elements meanwhile.
pub(crate) unsafe fn matmul_into<T: Real>(
    dst: MatMut<T>,
    lhs: Mat<T>,
    rhs: Mat<T>,
    accumulate: bool,
) {
    assert_eq!(
        (lhs.cols, dst.rows, dst.cols),
        (rhs.rows, lhs.rows, rhs.cols)
    );
    // SAFETY: shapes agree, and the caller vouches for `dst`.
    unsafe { T::product(dst, lhs, rhs, accumulate) }
}

/// Up to so many rows of A, packing B costs more than it gives.
const UNPACKED_ROWS: usize = 48;

impl private::Product for f32 {
    unsafe fn product(c: MatMut, a: Mat, b: Mat, accumulate: bool) {
        let few = c.rows <= UNPACKED_ROWS;
        let b_is_near = b.col_stride == 1 && (few || b.row_stride <= 2 * NC);
        // SAFETY: the caller vouches for `c`.
        unsafe {
            match () {
                () if c.rows == 0 || c.cols == 0 => {}
                () if a.cols == 0 && !accumulate => c.fill_zero(),
                () if a.cols == 0 => {}
                () if b_is_near => unpacked(c, a, b, accumulate),
                () if few && a.col_stride == 1 && b.col_stride != 1 => {
                    with_scratch(Turned::length(c.rows, a.cols), |turned| {
                        let a = Turned::new(a, turned);
                        few_rows(c, &a, 0..c.cols, &b.t(), None, accumulate);
                    });
                }
                () => blocked::<f32>(c, a, &b, 0, accumulate),
            }
        }
    }
}

/// The product of blocks, while what is `ahead` is asked for; the columns of `b` lie next to each other.
///
/// # Safety
/// As [`matmul_into`].
unsafe fn macro_kernel(c: MatMut, a: Mat, b: Mat, accumulate: bool, ahead: Ahead) {
    let kernel = MacroKernel {
        mc: c.rows,
        kc: a.cols,
        nc: c.cols,
        a: a.data.as_ptr(),
        a_row_stride: a.row_stride,
        a_col_stride: a.col_stride,
        b: b.data.as_ptr(),
        b_row_stride: b.row_stride,
        c: c.ptr,
        c_row_stride: c.row_stride,
        before: if accumulate { c.ptr } else { std::ptr::null() },
        before_row_stride: c.row_stride,
        ahead,
    };
    // SAFETY: the bounds of both operands were checked when they were made, and the caller
    // vouches for `c`.
    unsafe { kernel.run() }
}

/// The product in blocks of the inner dimension, with both operands as they lie. All ways have the
/// same blocks: which one is taken never changes a result.
///
/// # Safety
/// As [`matmul_into`].
unsafe fn unpacked(c: MatMut, a: Mat, b: Mat, accumulate: bool) {
    for k in (0..a.cols).step_by(KC) {
        let kc = KC.min(a.cols - k);
        let (a, b) = (a.columns(k, kc), b.t().columns(k, kc).t());
        // SAFETY: the caller vouches for `c`.
        unsafe { macro_kernel(c, a, b, accumulate || k > 0, Ahead::NOTHING) }
    }
}

impl private::Product for f64 {
    unsafe fn product(dst: MatMut<f64>, lhs: Mat<f64>, rhs: Mat<f64>, accumulate: bool) {
        // SAFETY: the bounds of both operands were checked when they were made, and the caller
        // vouches for `dst`.
        unsafe {
            gemm::gemm(
                dst.rows,
                dst.cols,
                lhs.cols,
                dst.ptr,
                1,
                dst.row_stride as isize,
                accumulate,
                lhs.data.as_ptr(),
                lhs.col_stride as isize,
                lhs.row_stride as isize,
                rhs.data.as_ptr(),
                rhs.col_stride as isize,
                rhs.row_stride as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

/// `dst = lhs · rhs`, or `dst += lhs · rhs` with `accumulate`, on the calling thread alone:
/// `dst[i, j]` lies at `i * row_stride + j`.
///
/// # Panics
/// If the sizes do not fit, or `dst` ends before the last element.
pub fn matmul<T: Real>(
    dst: &mut [T],
    row_stride: usize,
    lhs: Mat<T>,
    rhs: Mat<T>,
    accumulate: bool,
) {
    let dst = MatMut::new(dst, lhs.rows, rhs.cols, row_stride);
    // SAFETY: `dst` was borrowed exclusively for the length of this call.
    unsafe { matmul_into(dst, lhs, rhs, accumulate) }
}
