//! Blocks of rows and columns: what their weights range over, and which are the same.

use rayon::prelude::*;

use crate::fp8::power_above;
use crate::matrix::Matrix;

/// The smallest and the largest value of each block of so many rows and columns, row by row; blocks
/// at the edges may be short. [`usize::MAX`] stands for all rows or columns.
///
/// # Panics
/// If a size is 0.
pub fn block_ranges(matrix: &Matrix, [rows, cols]: [usize; 2]) -> Vec<[f32; 2]> {
    let [_, k] = matrix.shape;
    let each = matrix.values.par_chunks(rows.saturating_mul(k).max(1));
    each.flat_map_iter(|rows| {
        let mut ranges = vec![[f32::INFINITY, f32::NEG_INFINITY]; k.div_ceil(cols)];
        for row in rows.chunks_exact(k) {
            for (range, values) in ranges.iter_mut().zip(row.chunks(cols)) {
                let low = values.iter().fold(range[0], |low, v| low.min(*v));
                let high = values.iter().fold(range[1], |high, v| high.max(*v));
                *range = [low, high];
            }
        }
        ranges
    })
    .collect()
}

/// For each block the byte of the smallest power of two, see [`power_above`], that `largest` times is not
/// below the largest size of its values, in the order of [`block_ranges`].
///
/// # Panics
/// If a size is 0.
pub fn block_exponents(matrix: &Matrix, sizes: [usize; 2], largest: f32) -> Vec<u8> {
    let ranges = block_ranges(matrix, sizes).into_iter();
    let exponent = |[low, high]: [f32; 2]| power_above(high.max(-low) / largest);
    ranges.map(exponent).collect()
}

/// Whether each block has the same values in both matrices, in the order of [`block_ranges`].
///
/// # Panics
/// If a size is 0, or the matrices have different shapes.
pub fn equal_blocks(a: &Matrix, b: &Matrix, [rows, cols]: [usize; 2]) -> Vec<bool> {
    assert_eq!(a.shape, b.shape, "matrices of one shape");
    let [_, k] = a.shape;
    let chunk = rows.saturating_mul(k).max(1);
    let each = a.values.par_chunks(chunk).zip(b.values.par_chunks(chunk));
    each.flat_map_iter(|(a, b)| {
        let mut equal = vec![true; k.div_ceil(cols)];
        for (a, b) in a.chunks_exact(k).zip(b.chunks_exact(k)) {
            let pairs = a.chunks(cols).zip(b.chunks(cols));
            for (equal, (a, b)) in equal.iter_mut().zip(pairs) {
                *equal &= a == b;
            }
        }
        equal
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_numbered_row_by_row() {
        let matrix = Matrix {
            shape: [3, 5],
            values: (0..15).map(|v| v as f32 - 7.0).collect(),
        };
        let expected = [
            [-7.0, -1.0],
            [-5.0, 1.0],
            [-3.0, 2.0],
            [3.0, 4.0],
            [5.0, 6.0],
            [7.0, 7.0],
        ];
        assert_eq!(block_ranges(&matrix, [2, 2]), expected);
        assert_eq!(block_ranges(&matrix, [usize::MAX; 2]), [[-7.0, 7.0]]);
        let mut other = matrix.clone();
        other.values[7] = 0.5;
        let equal = equal_blocks(&matrix, &other, [2, 2]);
        assert_eq!(equal, [true, false, true, true, true, true]);
        let rows = [[-7.0, -3.0], [-2.0, 2.0], [3.0, 7.0]];
        assert_eq!(block_ranges(&matrix, [1, usize::MAX]), rows);
    }
}
