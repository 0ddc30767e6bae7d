//! Panels of an operand, packed together so that they stay in the first-level cache.

use super::Mat;

/// Columns of a packed panel of B: two of the widest vectors, so that it is one micro-panel where
/// vectors are widest.
pub(super) const NC: usize = 32;
/// Rows of a packed panel of B at most, and the length of the blocks of the inner dimension: a panel
/// takes 24 KiB.
pub(super) const KC: usize = 192;

/// Elements of a packed panel of B at most.
pub(super) const PANEL: usize = KC * NC;

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
