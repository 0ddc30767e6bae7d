//! Matrices that are turned over, square by square.

use super::{Mat, MatMut};

/// Sides of squares: a cache line, so that each is read and written once.
const SIDE: usize = 16;
/// Sides of the squares that fit registers everywhere.
const SMALL: usize = 4;

/// The transpose of `a`, row-major with `width` columns; those behind the last row of `a` are zeros.
pub(super) fn turn(a: Mat, width: usize, out: &mut [f32]) {
    out.fill(0.0);
    // SAFETY: `out` is borrowed exclusively.
    unsafe { turn_into(a, MatMut::new(out, a.cols, a.rows, width)) }
}

/// `C = Aᵀ`; the columns of `a` lie next to each other.
///
/// # Safety
/// As [`super::matmul_into`].
pub(super) unsafe fn turn_into(a: Mat, c: MatMut) {
    assert_eq!((a.rows, a.cols, a.col_stride), (c.cols, c.rows, 1));
    for row in (0..a.rows).step_by(SIDE) {
        for col in (0..a.cols).step_by(SIDE) {
            let square = Square {
                from: &a.data[row * a.row_stride + col..],
                from_stride: a.row_stride,
                // SAFETY: the first element of the square is inside of `c`.
                to: unsafe { c.ptr.add(col * c.row_stride + row) },
                to_stride: c.row_stride,
            };
            let size = [SIDE.min(a.rows - row), SIDE.min(a.cols - col)];
            // SAFETY: the square is inside of both matrices, and the caller vouches for `c`.
            unsafe { square.turn(size) }
        }
    }
}

/// Where a square is read, and where its rows become columns.
struct Square<'a> {
    from: &'a [f32],
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
}

impl Square<'_> {
    /// # Safety
    /// So many rows and columns are inside of both matrices, and nobody else accesses what is written.
    unsafe fn turn(&self, [height, width]: [usize; 2]) {
        #[cfg(target_arch = "x86_64")]
        if height == SIDE && width == SIDE && std::arch::is_x86_feature_detected!("avx512f") {
            let rows = std::array::from_fn(|r| self.row(r, 0));
            // SAFETY: lines of the square lie behind each other.
            let lines = std::array::from_fn(|c| unsafe { self.line(c, 0) });
            // SAFETY: the feature was just detected, and the caller vouches for the lines.
            return unsafe { super::x86::transpose(rows, lines) };
        }
        let whole = [height, width].map(|size| size / SMALL * SMALL);
        for r in (0..whole[0]).step_by(SMALL) {
            for c in (0..whole[1]).step_by(SMALL) {
                let rows: [&[f32; SMALL]; SMALL] = std::array::from_fn(|i| self.row(r + i, c));
                for i in 0..SMALL {
                    // SAFETY: the small square is inside of this one.
                    unsafe { self.line(c + i, r).write(rows.map(|row| row[i])) };
                }
            }
        }
        for r in 0..height {
            let first = if r < whole[0] { whole[1] } else { 0 };
            for c in first..width {
                let value = self.from[r * self.from_stride + c];
                // SAFETY: the element is inside of the square.
                unsafe { self.to.add(c * self.to_stride + r).write(value) };
            }
        }
    }

    /// Elements of row `r` from column `c` on.
    fn row<const N: usize>(&self, r: usize, c: usize) -> &[f32; N] {
        let row = self.from[r * self.from_stride + c..].first_chunk();
        row.expect("a row of the square")
    }

    /// Where elements of column `c` go, from row `r` on.
    ///
    /// # Safety
    /// They are inside of the square.
    unsafe fn line<const N: usize>(&self, c: usize, r: usize) -> *mut [f32; N] {
        // SAFETY: as the caller says.
        unsafe { self.to.add(c * self.to_stride + r).cast() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_of_every_size() {
        for (rows, cols) in [(1, 1), (3, 9), (16, 16), (17, 35), (31, 4), (48, 20)] {
            let (stride, width) = (cols + 3, rows + 5);
            let values: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
            let mut out = vec![-1.0; cols * width];
            turn(Mat::new(&values, rows, cols, stride), width, &mut out);
            for (col, line) in out.chunks_exact(width).enumerate() {
                let expected = (0..width).map(|row| match row < rows {
                    true => values[row * stride + col],
                    false => 0.0,
                });
                assert!(line.iter().copied().eq(expected), "{rows} × {cols}");
            }
        }
    }
}
