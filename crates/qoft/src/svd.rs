//! The largest singular values of a matrix with their vectors.
//!
//! Where the matrix is small for the rank, its decomposition is computed and cut off. Otherwise it is
//! that of a projection to the block Krylov space of random vectors (Musco and Musco, "Randomized
//! block Krylov methods for stronger and faster approximate singular value decomposition", algorithm
//! 2), which finds the largest values after a few products, even where all are nearly as large.
//! Products with the matrix are in `f32`, everything else in `f64`.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use qoft_core::Matrix;

/// Random vectors beside as many as values are wanted (Halko, Martinsson and Tropp,
/// arXiv 0909.4061, section 4.3).
const OVERSAMPLING: usize = 16;
/// Blocks of vectors. For random matrices, whose values are as near to each other as they come, what
/// is left over is less than 0.02 % larger than it had to be.
const BLOCKS: usize = 8;
/// Below so many times the vectors of a block, the whole decomposition takes no longer.
const SMALL: usize = 4;

/// `matrix ≈ left · diag(values) · rightᵀ`.
pub struct Svd {
    /// Singular values, from large to small.
    pub values: Vec<f64>,
    /// One column for each value.
    pub left: Mat<f64>,
    /// One column for each value.
    pub right: Mat<f64>,
}

/// The `rank` largest singular values of a matrix, or as many as it has; `None` if it has values that
/// are not finite. They are the same in every run.
pub fn truncated(matrix: &Matrix, rank: usize) -> Option<Svd> {
    let [height, width] = matrix.shape;
    let rows = MatRef::from_row_major_slice(&matrix.values, height, width);
    if height > width {
        let Svd {
            values,
            left,
            right,
        } = wide(rows.transpose(), rank)?;
        return Some(Svd {
            values,
            left: right,
            right: left,
        });
    }
    wide(rows, rank)
}

/// That of a matrix that is at least as wide as high.
fn wide(matrix: MatRef<f32>, rank: usize) -> Option<Svd> {
    let height = matrix.nrows();
    let rank = rank.min(height);
    let size = rank + OVERSAMPLING;
    if height <= SMALL * size {
        return decomposed(&in_f64(matrix), rank);
    }
    let (basis, images) = krylov(matrix, size, BLOCKS.min(height / size));
    let small = decomposed(&images, rank)?;
    let mut right = Mat::zeros(matrix.ncols(), rank);
    let (basis, factors) = (basis.as_ref(), small.right.as_ref());
    matmul(
        right.as_mut(),
        Accum::Replace,
        basis,
        factors,
        1.0,
        threads(),
    );
    Some(Svd { right, ..small })
}

/// The whole decomposition, cut off.
fn decomposed(matrix: &Mat<f64>, rank: usize) -> Option<Svd> {
    let svd = matrix.thin_svd().ok()?;
    let values = svd.S().column_vector().iter().take(rank);
    Some(Svd {
        values: values.copied().collect(),
        left: svd.U().subcols(0, rank).to_owned(),
        right: svd.V().subcols(0, rank).to_owned(),
    })
}

/// An orthonormal basis of `blocks` blocks of `size` vectors, which `matrixᵀ · matrix` makes of random
/// ones one after another, and the products of the matrix with it.
fn krylov(matrix: MatRef<f32>, size: usize, blocks: usize) -> (Mat<f64>, Mat<f64>) {
    let (height, width) = (matrix.nrows(), matrix.ncols());
    let mut basis = Mat::zeros(width, blocks * size);
    let mut images = Mat::zeros(height, blocks * size);
    let mut next = random(width, size);
    for start in (0..blocks).map(|block| block * size) {
        let block = orthonormal(next, basis.as_ref().subcols(0, start));
        basis.as_mut().subcols_mut(start, size).copy_from(&block);
        let image = product(matrix, &block);
        images.as_mut().subcols_mut(start, size).copy_from(&image);
        // Its directions count, not how long they are.
        next = product(matrix.transpose(), &image.qr().compute_thin_Q());
    }
    (basis, images)
}

/// Orthonormal columns that span what `block` adds to the orthonormal columns `before`.
fn orthonormal(mut block: Mat<f64>, before: MatRef<f64>) -> Mat<f64> {
    let mut shares = Mat::zeros(before.ncols(), block.ncols());
    // Once is not enough where little is left: it may lie in `before` as far as rounding goes.
    for _ in 0..2 {
        let (to, from) = (shares.as_mut(), block.as_ref());
        matmul(to, Accum::Replace, before.transpose(), from, 1.0, threads());
        matmul(
            block.as_mut(),
            Accum::Add,
            before,
            shares.as_ref(),
            -1.0,
            threads(),
        );
        block = block.qr().compute_thin_Q();
    }
    block
}

/// `matrix · vectors`.
fn product(matrix: MatRef<f32>, vectors: &Mat<f64>) -> Mat<f64> {
    let rounded = Mat::from_fn(vectors.nrows(), vectors.ncols(), |i, j| {
        vectors[(i, j)] as f32
    });
    let mut product = Mat::zeros(matrix.nrows(), vectors.ncols());
    matmul(
        product.as_mut(),
        Accum::Replace,
        matrix,
        rounded.as_ref(),
        1.0,
        threads(),
    );
    in_f64(product.as_ref())
}

fn in_f64(matrix: MatRef<f32>) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| {
        f64::from(matrix[(i, j)])
    })
}

/// Values between −1 and 1, the same in every run.
fn random(height: usize, width: usize) -> Mat<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    Mat::from_fn(height, width, |_, _| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        bits as f64 / (1u64 << 52) as f64 - 1.0
    })
}

/// All that rayon has.
fn threads() -> Par {
    Par::rayon(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix with these singular values.
    fn known(shape: [usize; 2], values: &[f64]) -> Matrix {
        let nothing = |height| Mat::zeros(height, 0);
        let left = orthonormal(random(shape[0], values.len()), nothing(shape[0]).as_ref());
        let more = random(shape[1], values.len() + 3);
        let right = more.as_ref().subcols(3, values.len()).to_owned();
        let right = orthonormal(right, nothing(shape[1]).as_ref());
        rebuilt(shape, values, &left, &right)
    }

    fn rebuilt(shape: [usize; 2], values: &[f64], left: &Mat<f64>, right: &Mat<f64>) -> Matrix {
        let scaled = Mat::from_fn(shape[0], values.len(), |i, k| left[(i, k)] * values[k]);
        let sum = scaled * right.transpose();
        let values = (0..shape[0] * shape[1]).map(|at| sum[(at / shape[1], at % shape[1])] as f32);
        Matrix::new(values.collect(), shape)
    }

    #[track_caller]
    fn check(shape: [usize; 2], values: &[f64], rank: usize) {
        let matrix = known(shape, values);
        let svd = truncated(&matrix, rank).unwrap();
        assert_eq!(svd.values.len(), rank.min(shape[0]).min(shape[1]));
        for (k, found) in svd.values.iter().enumerate() {
            let wanted = values.get(k).copied().unwrap_or(0.0);
            let off = (found - wanted).abs();
            assert!(
                off <= 1e-4 * wanted + 1e-6 * values[0],
                "{k}: {found}, not {wanted}"
            );
        }
        for columns in [&svd.left, &svd.right] {
            let products = columns.transpose() * columns;
            for k in 0..values.len().min(svd.values.len()) {
                for l in 0..=k {
                    let wanted = f64::from(u8::from(k == l));
                    assert!((products[(k, l)] - wanted).abs() < 1e-5, "{k} {l}");
                }
            }
        }
        if rank >= values.len() {
            let again = rebuilt(shape, &svd.values, &svd.left, &svd.right);
            let off = crate::adapted::relative_error(&again, &matrix);
            assert!(off < 1e-5, "{off}");
        }
    }

    #[test]
    fn singular_values_of_known_matrices() {
        let slow: Vec<f64> = (0..96).map(|k| 3.0 / (1.0 + 0.05 * f64::from(k))).collect();
        let flat: Vec<f64> = (0..96).map(|k| 1.0 - 0.005 * f64::from(k)).collect();
        let steep: Vec<f64> = (0..20).map(|k| 0.5f64.powi(k)).collect();
        for values in [&slow, &flat, &steep] {
            for shape in [[96, 160], [160, 96], [96, 96]] {
                check(shape, values, 8);
                check(shape, values, 96);
            }
        }
        check([300, 500], &steep, 20);
    }

    #[test]
    fn matrices_without_full_rank() {
        check([40, 30], &[5.0, 5.0, 1.0], 30);
        check([400, 300], &[5.0, 5.0, 1.0], 8);
        for (rows, rank) in [(6, 4), (200, 4)] {
            let (shape, values) = ([rows, 300], vec![0.0; rows * 300]);
            let svd = truncated(&Matrix::new(values, shape), rank).unwrap();
            assert_eq!(svd.values, [0.0; 4]);
            assert!((0..4).all(|k| svd.right.col(k).iter().all(|v| v.is_finite())));
        }
    }

    /// Values as near to each other as they come: those of random numbers.
    #[test]
    fn little_more_is_left_over_than_has_to_be() {
        let (shape, rank) = ([320, 400], 12);
        let numbers = random(shape[0], shape[1]);
        let values =
            (0..shape[0] * shape[1]).map(|at| numbers[(at / shape[1], at % shape[1])] as f32);
        let matrix = Matrix::new(values.collect(), shape);
        let all = truncated(&matrix, shape[0]).unwrap();
        let some = truncated(&matrix, rank).unwrap();
        let squares = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>();
        let left = |svd: &Svd| squares(&all.values) - squares(&svd.values[..rank]);
        assert!((left(&some) / left(&all)).sqrt() < 1.0002);
    }

    #[test]
    fn what_is_not_finite_has_none() {
        let (shape, values) = ([2, 3], vec![f32::NAN; 6]);
        assert!(truncated(&Matrix::new(values, shape), 1).is_none());
    }
}
