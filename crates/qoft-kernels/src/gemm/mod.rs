//! The matrix product of strided operands on one thread.
//!
//! Products of `f32` are our own: their operands are panels that were just decoded, or rotations,
//! and lie in a cache already. Those of `f64` are the `gemm` crate's.

mod pack;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

use pack::{DEPTH, STRIP, WIDTH, pack};
use tile::Product;

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

impl<'a, T: Real> Mat<'a, T> {
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

    /// Columns `start..start + cols`.
    fn inner(self, start: usize, cols: usize) -> Self {
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

    /// Columns `start..start + cols` of this matrix.
    pub fn columns(self, start: usize, cols: usize) -> Self {
        assert!(start + cols <= self.cols);
        // SAFETY: the first element of the band lies inside the matrix.
        let ptr = unsafe { self.ptr.add(start) };
        Self { ptr, cols, ..self }
    }
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

/// Up to so many rows of the left operand, the right one is not worth a copy.
const FEW: usize = 48;

impl private::Product for f32 {
    unsafe fn product(dst: MatMut, lhs: Mat, rhs: Mat, accumulate: bool) {
        let near = rhs.col_stride == 1 && (dst.rows <= FEW || rhs.row_stride <= 2 * WIDTH);
        // SAFETY: the caller vouches for `dst`.
        unsafe {
            match () {
                () if dst.rows == 0 || dst.cols == 0 => {}
                () if lhs.cols == 0 && !accumulate => dst.fill_zero(),
                () if near => in_place(dst, lhs, rhs, accumulate),
                () if rhs.col_stride != 1 && dst.rows <= FEW => {
                    let length = STRIP + dst.cols * WIDTH;
                    with_scratch(length, |scratch| turned(dst, lhs, rhs, accumulate, scratch));
                }
                () => with_scratch(STRIP, |strip| in_strips(dst, lhs, rhs, accumulate, strip)),
            }
        }
    }
}

/// The product without copies; the columns of `rhs` lie next to each other.
///
/// # Safety
/// As [`matmul_into`].
unsafe fn product_of(dst: MatMut, lhs: Mat, rhs: Mat, accumulate: bool) {
    let product = Product {
        rows: dst.rows,
        depth: lhs.cols,
        cols: dst.cols,
        a: lhs.data.as_ptr(),
        a_row: lhs.row_stride,
        a_col: lhs.col_stride,
        b: rhs.data.as_ptr(),
        b_row: rhs.row_stride,
        c: dst.ptr,
        c_row: dst.row_stride,
        accumulate,
    };
    // SAFETY: the bounds of both operands were checked when they were made, and the caller
    // vouches for `dst`.
    unsafe { product.run() }
}

/// The product in blocks of the inner dimension. All ways have the same blocks: which one is
/// taken never changes a result.
///
/// # Safety
/// As [`matmul_into`].
unsafe fn in_place(dst: MatMut, lhs: Mat, rhs: Mat, accumulate: bool) {
    for start in (0..lhs.cols).step_by(DEPTH) {
        let depth = DEPTH.min(lhs.cols - start);
        let (lhs, rhs) = (lhs.inner(start, depth), rhs.t().inner(start, depth).t());
        // SAFETY: the caller vouches for `dst`.
        unsafe { product_of(dst, lhs, rhs, accumulate || start > 0) }
    }
}

/// The product in blocks of the inner dimension and strips of columns that are copied first.
///
/// # Safety
/// As [`matmul_into`].
unsafe fn in_strips(dst: MatMut, lhs: Mat, rhs: Mat, accumulate: bool, strip: &mut [f32]) {
    for start in (0..lhs.cols).step_by(DEPTH) {
        let depth = DEPTH.min(lhs.cols - start);
        let lhs = lhs.inner(start, depth);
        for col in (0..dst.cols).step_by(WIDTH) {
            let cols = WIDTH.min(dst.cols - col);
            pack(rhs, [start, depth], [col, cols], strip);
            let rhs = Mat::new(strip, depth, cols, WIDTH);
            // SAFETY: the strip's columns are inside `dst`.
            unsafe { product_of(dst.columns(col, cols), lhs, rhs, accumulate || start > 0) }
        }
    }
}

/// For few rows and a right operand whose columns are far apart: `dstᵀ = rhsᵀ · lhsᵀ`, for which
/// only the left operand is copied.
///
/// # Safety
/// As [`matmul_into`].
unsafe fn turned(dst: MatMut, lhs: Mat, rhs: Mat, accumulate: bool, scratch: &mut [f32]) {
    let (strip, result) = scratch.split_at_mut(STRIP);
    for row in (0..dst.rows).step_by(WIDTH) {
        let rows = WIDTH.min(dst.rows - row);
        for start in (0..lhs.cols).step_by(DEPTH) {
            let depth = DEPTH.min(lhs.cols - start);
            pack(lhs.t(), [start, depth], [row, rows], strip);
            let strip = Mat::new(strip, depth, rows, WIDTH);
            let panel = rhs.t().inner(start, depth);
            let result = MatMut::new(result, dst.cols, rows, WIDTH);
            // SAFETY: `result` is our own.
            unsafe { product_of(result, panel, strip, start > 0) }
        }
        for r in 0..rows {
            for (col, result) in result.chunks_exact(WIDTH).take(dst.cols).enumerate() {
                // SAFETY: the element is inside `dst`, which the caller vouches for; it is only
                // read where it has a value.
                unsafe {
                    let to = dst.ptr.add((row + r) * dst.row_stride + col);
                    let before = if accumulate { Some(to.read()) } else { None };
                    to.write(before.map_or(result[r], |before| before + result[r]));
                }
            }
        }
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
