//! Panels of an operand, packed together so that they stay in the first-level cache.

use super::{Mat, MatMut};

/// Columns of a packed panel of B: two of the widest vectors, so that it is one micro-panel where
/// vectors are widest.
pub(crate) const NC: usize = 32;
/// The length of the blocks of the inner dimension: as many rows of a panel take 24 KiB. It is the same on
/// all machines, since results depend on it.
pub(super) const KC: usize = 192;
/// Rows of a packed panel of B at most, two blocks: rows of weights are decoded along the inner dimension,
/// and the longer the pieces the faster.
pub(super) const STEP: usize = 2 * KC;

/// Elements of a packed panel of B.
pub(crate) const PANEL: usize = STEP * NC;

/// Columns `col..col + nc` of rows `row..row + kc` of `b`, row-major with [`NC`] columns.
pub(super) fn pack(b: Mat, [row, kc]: [usize; 2], [col, nc]: [usize; 2], panel: &mut [f32]) {
    let (panel, _) = panel.as_chunks_mut::<NC>();
    let from = &b.data[row * b.row_stride + col * b.col_stride..];
    if b.col_stride == 1 {
        for (r, line) in panel[..kc].iter_mut().enumerate() {
            line[..nc].copy_from_slice(&from[r * b.row_stride..][..nc]);
        }
    } else {
        // Squares of one cache line's length, so that each line is read once.
        for r in (0..kc).step_by(16) {
            let height = 16.min(kc - r);
            let lines = &mut panel[r..r + height];
            for c in (0..nc).step_by(16) {
                let width = 16.min(nc - c);
                let from = &from[r * b.row_stride + c * b.col_stride..];
                square(from, [b.row_stride, b.col_stride], width, c, lines);
            }
        }
    }
}

/// A copy of at most [`STEP`] columns of `a`, whose rows follow each other; columns of `a` lie next to each
/// other.
pub(super) fn pack_rows<'a>(a: Mat, near: &'a mut [f32]) -> Mat<'a> {
    for (r, line) in near.chunks_exact_mut(STEP).take(a.rows).enumerate() {
        line[..a.cols].copy_from_slice(&a.data[r * a.row_stride..][..a.cols]);
    }
    Mat::new(near, a.rows, a.cols, STEP)
}

/// The transpose of `a`, row-major with `width` columns, a multiple of 16; those behind the last row of `a`
/// are zeros.
pub(super) fn turn(a: Mat, width: usize, out: &mut [f32]) {
    out.fill(0.0);
    // SAFETY: `out` is ours, and has room for as many columns.
    unsafe { turn_into(a, MatMut::new(out, a.cols, a.rows, width)) }
}

/// `C = Aᵀ`; the columns of `a` lie next to each other.
///
/// # Safety
/// As [`super::matmul_into`].
pub(super) unsafe fn turn_into(a: Mat, c: MatMut) {
    for row in (0..a.rows).step_by(16) {
        for col in (0..a.cols).step_by(16) {
            let (height, width) = (16.min(a.rows - row), 16.min(a.cols - col));
            let from = &a.data[row * a.row_stride + col..];
            // SAFETY: the square is inside of `c`, which the caller vouches for.
            let to = unsafe { c.ptr.add(col * c.row_stride + row) };
            #[cfg(target_arch = "x86_64")]
            if height == 16 && width == 16 && std::arch::is_x86_feature_detected!("avx512f") {
                let rows = std::array::from_fn(|r| {
                    from[r * a.row_stride..].first_chunk().expect("16 elements")
                });
                // SAFETY: as above.
                let lines = std::array::from_fn(|r| unsafe {
                    &mut *to.add(r * c.row_stride).cast::<[f32; 16]>()
                });
                // SAFETY: the feature was just detected.
                unsafe { super::x86::transpose(rows, lines) };
                continue;
            }
            for r in 0..height {
                for c_row in 0..width {
                    // SAFETY: as above.
                    unsafe {
                        to.add(c_row * c.row_stride + r)
                            .write(from[r * a.row_stride + c_row])
                    };
                }
            }
        }
    }
}

/// Up to 16 × 16 elements, from columns to rows.
fn square(from: &[f32], strides: [usize; 2], width: usize, at: usize, lines: &mut [[f32; NC]]) {
    #[cfg(target_arch = "x86_64")]
    if strides[0] == 1
        && width == 16
        && lines.len() == 16
        && std::arch::is_x86_feature_detected!("avx512f")
    {
        let columns = std::array::from_fn(|c| {
            let column = from[c * strides[1]..].first_chunk();
            column.expect("a column of 16 elements")
        });
        let mut lines = lines.iter_mut();
        let rows = std::array::from_fn(|_| {
            let line = lines.next().expect("16 lines");
            line[at..].first_chunk_mut().expect("half a line")
        });
        // SAFETY: the feature was just detected.
        return unsafe { super::x86::transpose(columns, rows) };
    }
    for (r, line) in lines.iter_mut().enumerate() {
        for (c, value) in line[at..at + width].iter_mut().enumerate() {
            *value = from[r * strides[0] + c * strides[1]];
        }
    }
}
