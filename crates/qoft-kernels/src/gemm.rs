//! Safe wrappers of the matrix product, for strided operands.

/// A read-only strided matrix.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Rows `row_stride` elements apart, columns next to each other.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || data.len() >= (rows - 1) * row_stride + cols);
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A strided matrix to write to, given by pointer so that threads can own column bands of one
/// buffer.
#[derive(Clone, Copy)]
pub(crate) struct MatMut {
    ptr: *mut f32,
    rows: usize,
    cols: usize,
    row_stride: usize,
}

// SAFETY: a `MatMut` is only made by its two constructors; the unsafe one hands the promise of
// disjointness to its caller, the safe one borrows exclusively.
unsafe impl Send for MatMut {}
// SAFETY: as above.
unsafe impl Sync for MatMut {}

impl MatMut {
    /// The whole of `data`, `rows` × `cols`, rows `row_stride` apart.
    pub fn new(data: &mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || data.len() >= (rows - 1) * row_stride + cols);
        Self {
            ptr: data.as_mut_ptr(),
            rows,
            cols,
            row_stride,
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
pub(crate) unsafe fn matmul_into(dst: MatMut, lhs: Mat, rhs: Mat, accumulate: bool) {
    assert_eq!(
        (lhs.cols, dst.rows, dst.cols),
        (rhs.rows, lhs.rows, rhs.cols)
    );
    // SAFETY: shapes agree (above), both operands' bounds were checked when they were made, and
    // the caller vouches for `dst`.
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

/// [`matmul_into`] for a buffer that the caller owns: `dst[i, j]` lies at `i * row_stride + j`.
pub(crate) fn matmul(dst: &mut [f32], row_stride: usize, lhs: Mat, rhs: Mat, accumulate: bool) {
    let dst = MatMut::new(dst, lhs.rows, rhs.cols, row_stride);
    // SAFETY: `dst` was borrowed exclusively for the length of this call.
    unsafe { matmul_into(dst, lhs, rhs, accumulate) }
}
