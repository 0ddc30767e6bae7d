//! The Cholesky factor of a large matrix.

use qoft_kernels::gemm::{Mat, matmul};
use rayon::prelude::*;

/// Columns that are finished together.
const BLOCK: usize = 64;
/// Rows that a thread takes at once.
const BAND: usize = 32;

/// Replaces the lower triangle of the `n` × `n` matrix `a` by that of `L`, where `L · Lᵀ = a`. The
/// upper triangle is not read; afterwards it has any values.
///
/// The columns are finished block by block from the left; Golub and Van Loan, Matrix
/// Computations, section 4.2 ("Block Cholesky").
///
/// Returns whether `a` is positive definite; if not, `a` is left unfinished.
pub(crate) fn factor(a: &mut [f64], n: usize) -> bool {
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        let rest = &mut a[start * n..];
        subtract_columns_before(rest, n, start, width);
        let (diagonal, below) = rest.split_at_mut(width * n);
        if !factor_diagonal(diagonal, n, start, width) {
            return false;
        }
        // x · Dᵀ = row
        below.par_chunks_exact_mut(n).for_each(|row| {
            let row = &mut row[start..start + width];
            for j in 0..width {
                let factor = &diagonal[j * n + start..][..=j];
                row[j] = (row[j] - dot(&row[..j], &factor[..j])) / factor[j];
            }
        });
    }
    true
}

/// Takes the part of the finished columns `..start` out of the next `width` ones.
fn subtract_columns_before(rest: &mut [f64], n: usize, start: usize, width: usize) {
    if start == 0 {
        return;
    }
    let mut left = Vec::with_capacity(width * start);
    for row in rest.chunks_exact(n).take(width) {
        left.extend_from_slice(&row[..start]);
    }
    let left = Mat::new(&left, width, start, start);
    rest.par_chunks_mut(BAND * n)
        .for_each_init(Vec::new, |product, rows| {
            let count = rows.len() / n;
            product.resize(count * width, 0.0);
            matmul(
                product,
                width,
                Mat::new(rows, count, start, n),
                left.t(),
                false,
            );
            let rows = rows.chunks_exact_mut(n);
            for (row, product) in rows.zip(product.chunks_exact(width)) {
                for (value, product) in row[start..].iter_mut().zip(product) {
                    *value -= product;
                }
            }
        });
}

/// The factor of the block on the diagonal, row by row.
fn factor_diagonal(rows: &mut [f64], n: usize, start: usize, width: usize) -> bool {
    for i in 0..width {
        let (above, row) = rows.split_at_mut(i * n);
        let row = &mut row[start..start + width];
        for j in 0..i {
            let factor = &above[j * n + start..][..=j];
            row[j] = (row[j] - dot(&row[..j], &factor[..j])) / factor[j];
        }
        let square = row[i] - dot(&row[..i], &row[..i]);
        // False for what is not a number, too.
        let positive = square > 0.0 && square.is_finite();
        if !positive {
            return false;
        }
        row[i] = square.sqrt();
    }
    true
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `G · Gᵀ + 0.01`, for numbers without a pattern.
    fn positive(n: usize) -> Vec<f64> {
        let g: Vec<f64> = (0..n * n)
            .map(|i| ((i * 7919 + i / n) % 1013) as f64 / 506.0 - 1.0)
            .collect();
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                a[i * n + j] = dot(&g[i * n..][..n], &g[j * n..][..n]);
            }
            a[i * n + i] += 0.01;
        }
        a
    }

    #[test]
    fn the_factor_times_itself_is_the_matrix() {
        for n in [1, 2, 63, 64, 65, 200] {
            let a = positive(n);
            let mut l = a.clone();
            // The upper triangle must not matter.
            (0..n).for_each(|i| l[i * n + i + 1..(i + 1) * n].fill(f64::NAN));
            assert!(factor(&mut l, n));
            for i in 0..n {
                for j in 0..=i {
                    let product = dot(&l[i * n..][..=j], &l[j * n..][..=j]);
                    assert!((product - a[i * n + j]).abs() < 1e-9, "{n}: {i} {j}");
                }
            }
        }
    }

    #[test]
    fn other_matrices_are_refused() {
        assert!(!factor(&mut [1.0, 0.0, 2.0, 1.0], 2));
        assert!(!factor(&mut [0.0], 1));
        assert!(!factor(&mut [f64::NAN], 1));
        assert!(!factor(&mut [f64::INFINITY], 1));
        let mut a = positive(150);
        a[149 * 150 + 149] = 0.0;
        assert!(!factor(&mut a, 150));
    }
}
