//! Safe wrappers of the matrix product, for strided operands.

/// The numbers of a product: `f32` and `f64`.
pub trait Real: private::Sealed + Copy + Send + Sync + 'static {
    /// 1.
    const ONE: Self;
}

impl Real for f32 {
    const ONE: Self = 1.0;
}

impl Real for f64 {
    const ONE: Self = 1.0;
}

mod private {
    /// The product is only made for these types.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
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
pub(crate) struct MatMut<T = f32> {
    ptr: *mut T,
    rows: usize,
    cols: usize,
    row_stride: usize,
}

// SAFETY: a `MatMut` is only made by its two constructors; the unsafe one hands the promise of
// disjointness to its caller, the safe one borrows exclusively.
unsafe impl<T: Real> Send for MatMut<T> {}
// SAFETY: as above.
unsafe impl<T: Real> Sync for MatMut<T> {}

impl<T: Real> MatMut<T> {
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
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
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
