//! Queries and keys of length 1.

use crate::gemm::Mat;
use crate::vector::dot;
use crate::wide;

/// Added to the square of a length.
const EPS: f32 = 1e-6;

/// Queries and keys of one head, `[time, dim]` each: normalized, and queries divided by `√dim`.
pub struct Keys {
    q: Normalized,
    k: Normalized,
    dim: usize,
}

struct Normalized {
    values: Vec<f32>,
    /// What each row was multiplied by.
    factors: Vec<f32>,
    /// The length of the rows.
    length: f32,
}

impl Normalized {
    /// The rows that begin at `column` in rows of `stride` numbers.
    fn new(rows: &[f32], stride: usize, column: usize, dim: usize, length: f32) -> Self {
        let count = rows.len() / stride;
        let mut values = Vec::with_capacity(count * dim);
        let mut factors = Vec::with_capacity(count);
        for row in rows.chunks_exact(stride) {
            let row = &row[column..column + dim];
            let factor = length / wide!(dot(row, row) + EPS).sqrt();
            values.extend(row.iter().map(|v| v * factor));
            factors.push(factor);
        }
        Self {
            values,
            factors,
            length,
        }
    }

    /// `dx = f·(dy − y·(y·dy)/l²)` for `y = f·x` of the length `l`.
    fn gradient(&self, mut grad: Vec<f32>, dim: usize) -> Vec<f32> {
        let rows = grad
            .chunks_exact_mut(dim)
            .zip(self.values.chunks_exact(dim));
        for ((grad, y), factor) in rows.zip(&self.factors) {
            wide!({
                let pull = dot(grad, y) / (self.length * self.length);
                for (grad, y) in grad.iter_mut().zip(y) {
                    *grad = factor * (*grad - y * pull);
                }
            });
        }
        grad
    }
}

impl Keys {
    /// Those that begin at these columns in rows of `stride` numbers.
    pub fn new(rows: &[f32], stride: usize, [q, k]: [usize; 2], dim: usize) -> Self {
        let scale = 1.0 / (dim as f32).sqrt();
        Self {
            q: Normalized::new(rows, stride, q, dim, scale),
            k: Normalized::new(rows, stride, k, dim, 1.0),
            dim,
        }
    }

    /// Some of the queries.
    pub fn queries(&self, from: usize, rows: usize) -> Mat<'_> {
        Mat::new(&self.q.values[from * self.dim..], rows, self.dim, self.dim)
    }

    /// Some of the keys.
    pub fn keys(&self, from: usize, rows: usize) -> Mat<'_> {
        Mat::new(&self.k.values[from * self.dim..], rows, self.dim, self.dim)
    }

    /// One query.
    pub fn query(&self, at: usize) -> &[f32] {
        &self.q.values[at * self.dim..][..self.dim]
    }

    /// One key.
    pub fn key(&self, at: usize) -> &[f32] {
        &self.k.values[at * self.dim..][..self.dim]
    }

    /// Room for a gradient of queries or keys.
    pub fn zeros(&self) -> Vec<f32> {
        vec![0.0; self.k.values.len()]
    }

    /// Gradients of queries and keys as they were given, from those of the normalized ones.
    pub fn unnormalized(&self, [q, k]: [Vec<f32>; 2]) -> [Vec<f32>; 2] {
        [self.q.gradient(q, self.dim), self.k.gradient(k, self.dim)]
    }
}
