//! The largest singular values of a matrix with their vectors.
//!
//! Subspace iteration: products with the matrix in `f32`, everything else in `f64`. If most of the
//! values are wanted, the subspace is the whole space and nothing is iterated.

use burn::tensor::Tensor;
use qoft_core::Matrix;

use crate::adapted::{from_tensor, to_tensor};

/// The iteration stops when a step adds less than this share to what the subspace captures.
const ENOUGH: f64 = 1e-8;
const MAX_STEPS: usize = 200;
const MAX_SWEEPS: usize = 40;

/// `matrix ≈ left · diag(values) · rightᵀ`.
pub struct Svd {
    /// Singular values, from large to small.
    pub values: Vec<f64>,
    /// One column for each value.
    pub left: Columns,
    /// One column for each value.
    pub right: Columns,
}

/// A matrix as a list of its columns.
#[derive(Clone)]
pub struct Columns(pub Vec<Vec<f64>>);

/// The `rank` largest singular values of a matrix, or as many as it has.
pub fn truncated(matrix: &Matrix, rank: usize) -> Svd {
    let rows = to_tensor(matrix.clone());
    let [height, width] = matrix.shape;
    if height > width {
        let Svd {
            values,
            left,
            right,
        } = wide(&rows.transpose(), rank);
        return Svd {
            values,
            left: right,
            right: left,
        };
    }
    wide(&rows, rank)
}

/// That of a matrix that is at least as wide as high.
fn wide(matrix: &Tensor<2>, rank: usize) -> Svd {
    let [height, width] = matrix.dims();
    let rank = rank.min(height);
    let size = rank + (rank / 2).max(16);
    let (left, right, triangle) = if size >= height {
        let left = Columns::identity(height);
        let (right, triangle) = left.times(matrix).orthonormal();
        (left, right, triangle)
    } else {
        iterate(matrix, Columns::random(width, size))
    };
    // matrix ≈ left · triangleᵀ · rightᵀ
    let (values, small_right, small_left) = jacobi(triangle, rank);
    Svd {
        values,
        left: left.combined(&small_left),
        right: right.combined(&small_right),
    }
}

/// Bases of the largest singular vectors on both sides, and the product between them.
fn iterate(matrix: &Tensor<2>, mut right: Columns) -> (Columns, Columns, Columns) {
    let across = matrix.clone().transpose();
    let mut captured = 0.0;
    let mut step = 0;
    loop {
        let (left, _) = right.times(&across).orthonormal();
        let (next, triangle) = left.times(matrix).orthonormal();
        let now: f64 = triangle.0.iter().map(|column| dot(column, column)).sum();
        step += 1;
        if now - captured <= ENOUGH * now || step == MAX_STEPS {
            return (left, next, triangle);
        }
        (captured, right) = (now, next);
    }
}

impl Columns {
    fn identity(size: usize) -> Self {
        let unit = |k: usize| (0..size).map(|i| f64::from(u8::from(i == k))).collect();
        Self((0..size).map(unit).collect())
    }

    /// Values between −1 and 1, the same in every run.
    fn random(height: usize, width: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            // xorshift64*
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
            bits as f64 / (1u64 << 52) as f64 - 1.0
        };
        Self(
            (0..width)
                .map(|_| (0..height).map(|_| next()).collect())
                .collect(),
        )
    }

    /// `matrixᵀ · self`.
    fn times(&self, matrix: &Tensor<2>) -> Self {
        let values = self.0.iter().flatten().map(|&v| v as f32).collect();
        let shape = [self.0.len(), matrix.dims()[0]];
        // Columns are the rows of the transpose.
        let product = from_tensor(to_tensor(Matrix { shape, values }).matmul(matrix.clone()));
        let wide = |row: &[f32]| row.iter().map(|&v| f64::from(v)).collect();
        Self(product.rows().map(wide).collect())
    }

    /// Columns of length 1 at right angles, and the upper triangle that they are multiplied with
    /// to get `self`. A column that depends on those before it becomes 0.
    fn orthonormal(mut self) -> (Self, Self) {
        let count = self.0.len();
        let mut triangle = vec![vec![0.0; count]; count];
        for (k, factors) in triangle.iter_mut().enumerate() {
            let (done, rest) = self.0.split_at_mut(k);
            let column = &mut rest[0];
            let before = dot(column, column).sqrt();
            // Once is not enough where little is left.
            for _ in 0..2 {
                let shares: Vec<f64> = done.iter().map(|q| dot(q, column)).collect();
                for (i, (q, share)) in done.iter().zip(shares).enumerate() {
                    factors[i] += share;
                    add(column, -share, q);
                }
            }
            let length = dot(column, column).sqrt();
            if length <= 1e-10 * before {
                column.fill(0.0);
            } else {
                column.iter_mut().for_each(|v| *v /= length);
                factors[k] = length;
            }
        }
        (self, Self(triangle))
    }

    /// `self · factors`.
    fn combined(&self, factors: &Self) -> Self {
        let height = self.0.first().map_or(0, Vec::len);
        let sum = |factors: &Vec<f64>| {
            let mut sum = vec![0.0; height];
            for (column, &factor) in self.0.iter().zip(factors) {
                add(&mut sum, factor, column);
            }
            sum
        };
        Self(factors.0.iter().map(sum).collect())
    }
}

/// The `rank` largest singular values of a small square matrix, and their left and right vectors,
/// by one-sided Jacobi rotations.
fn jacobi(matrix: Columns, rank: usize) -> (Vec<f64>, Columns, Columns) {
    let mut scaled = matrix.0;
    let mut right = Columns::identity(scaled.len()).0;
    for _ in 0..MAX_SWEEPS {
        let mut turned = false;
        for j in 1..scaled.len() {
            for i in 0..j {
                let (a, b) = (dot(&scaled[i], &scaled[i]), dot(&scaled[j], &scaled[j]));
                let both = dot(&scaled[i], &scaled[j]);
                if both.abs() <= 1e-12 * (a * b).sqrt() {
                    continue;
                }
                turned = true;
                let half = (b - a) / (2.0 * both);
                let tan = half.signum() / (half.abs() + (1.0 + half * half).sqrt());
                let cos = 1.0 / (1.0 + tan * tan).sqrt();
                turn(&mut scaled, i, j, cos, cos * tan);
                turn(&mut right, i, j, cos, cos * tan);
            }
        }
        if !turned {
            break;
        }
    }
    let lengths: Vec<f64> = scaled.iter().map(|c| dot(c, c).sqrt()).collect();
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by(|&i, &j| lengths[j].total_cmp(&lengths[i]));
    order.truncate(rank);
    let unit = |&k: &usize| {
        let by = if lengths[k] > 0.0 {
            1.0 / lengths[k]
        } else {
            0.0
        };
        scaled[k].iter().map(|v| v * by).collect()
    };
    (
        order.iter().map(|&k| lengths[k]).collect(),
        Columns(order.iter().map(unit).collect()),
        Columns(order.iter().map(|&k| right[k].clone()).collect()),
    )
}

/// Rotates columns `i` and `j`, `i < j`.
fn turn(columns: &mut [Vec<f64>], i: usize, j: usize, cos: f64, sin: f64) {
    let (left, right) = columns.split_at_mut(j);
    for (x, y) in left[i].iter_mut().zip(&mut right[0]) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
}

/// In eight sums, which run side by side.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let (x8, y8) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest = x8.remainder().iter().zip(y8.remainder());
    let rest: f64 = rest.map(|(a, b)| a * b).sum();
    let mut sums = [0.0; 8];
    for (x, y) in x8.zip(y8) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// `y += factor · x`.
fn add(y: &mut [f64], factor: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix with these singular values.
    fn known(shape: [usize; 2], values: &[f64]) -> Matrix {
        let (left, _) = Columns::random(shape[0], values.len()).orthonormal();
        let mut right = Columns::random(shape[1], values.len() + 3);
        right.0.drain(..3);
        let (right, _) = right.orthonormal();
        rebuilt(shape, values, &left, &right)
    }

    fn rebuilt(shape: [usize; 2], values: &[f64], left: &Columns, right: &Columns) -> Matrix {
        let mut sum = vec![0.0; shape[0] * shape[1]];
        for ((value, left), right) in values.iter().zip(&left.0).zip(&right.0) {
            for (row, l) in sum.chunks_exact_mut(shape[1]).zip(left) {
                add(row, value * l, right);
            }
        }
        let values = sum.into_iter().map(|v| v as f32).collect();
        Matrix { shape, values }
    }

    #[track_caller]
    fn check(shape: [usize; 2], values: &[f64], rank: usize) {
        let matrix = known(shape, values);
        let svd = truncated(&matrix, rank);
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
            for (k, a) in columns.0.iter().enumerate().take(values.len()) {
                for (l, b) in columns.0.iter().enumerate().take(k + 1) {
                    let wanted = f64::from(u8::from(k == l));
                    assert!((dot(a, b) - wanted).abs() < 1e-5, "{k} {l}");
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
        let (shape, values) = ([6, 9], vec![0.0; 54]);
        let svd = truncated(&Matrix { shape, values }, 4);
        assert_eq!(svd.values, [0.0; 4]);
    }
}
