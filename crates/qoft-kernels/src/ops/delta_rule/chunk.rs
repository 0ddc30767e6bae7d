//! What happens among some consecutive tokens, whatever the state before them.

use super::keys::Keys;
use crate::gemm::{Mat, matmul};
use crate::vector::exp;
use crate::wide;

/// Tokens that are computed together.
pub const CHUNK: usize = 64;

/// Products of the keys and queries of some tokens, and what is left of what they write.
pub struct Chunk {
    /// The first token.
    pub start: usize,
    /// How many there are.
    pub rows: usize,
    /// What is left of the state before the tokens at each of them.
    pub left: Vec<f32>,
    /// What is left of each token behind the last one.
    pub rest: Vec<f32>,
    /// What is left of token `j` at token `i`, `[rows, rows]`; 0 for later ones.
    pub between: Vec<f32>,
    /// That times the product of the keys, for earlier tokens only.
    pub overlap: Vec<f32>,
    /// The same for the query of `i` and the key of `j`, the token itself included.
    pub reads: Vec<f32>,
}

impl Chunk {
    /// Of tokens from `start` on; `decay` has the logarithms of their decays.
    pub fn new(keys: &Keys, start: usize, decay: &[f32]) -> Self {
        let rows = decay.len();
        let sums: Vec<f32> = decay
            .iter()
            .scan(0.0, |sum, decay| {
                *sum += decay;
                Some(*sum)
            })
            .collect();
        let last = sums.last().copied().unwrap_or_default();
        let mut between = vec![0.0; rows * rows];
        wide!({
            for (i, out) in between.chunks_exact_mut(rows).enumerate() {
                let at = sums[i];
                for (out, sum) in out[..=i].iter_mut().zip(&sums) {
                    *out = exp(at - sum);
                }
            }
        });
        let (q, k) = (keys.queries(start, rows), keys.keys(start, rows));
        let mut overlap = product(k, k, [rows; 2]);
        let mut reads = product(q, k, [rows; 2]);
        for i in 0..rows {
            let row = i * rows..(i + 1) * rows;
            let between = &between[row.clone()];
            for (out, between) in overlap[row.clone()].iter_mut().zip(between) {
                *out *= between;
            }
            overlap[row.start + i] = 0.0;
            for (out, between) in reads[row].iter_mut().zip(between) {
                *out *= between;
            }
        }
        Self {
            start,
            rows,
            left: sums.iter().map(|sum| exp(*sum)).collect(),
            rest: sums.iter().map(|sum| exp(last - sum)).collect(),
            between,
            overlap,
            reads,
        }
    }

    /// What is left of the state before the tokens behind the last one.
    pub fn kept(&self) -> f32 {
        self.left[self.rows - 1]
    }

    /// One of the `[rows, rows]` matrices.
    pub fn square<'a>(&self, values: &'a [f32]) -> Mat<'a> {
        Mat::new(values, self.rows, self.rows, self.rows)
    }

    /// Solves `w_i + β_i Σ_{j<i} overlap_ij w_j = r_i` in place, for rows of `width` numbers.
    pub fn solve(&self, beta: &[f32], w: &mut [f32], width: usize) {
        for (i, beta) in beta.iter().enumerate().take(self.rows).skip(1) {
            let (before, row) = w.split_at_mut(i * width);
            let row = &mut row[..width];
            let overlap = &self.overlap[i * self.rows..][..i];
            wide!({
                for (w, overlap) in before.chunks_exact(width).zip(overlap) {
                    let factor = beta * overlap;
                    for (row, w) in row.iter_mut().zip(w) {
                        *row -= factor * w;
                    }
                }
            });
        }
    }

    /// Solves the transposed system in place.
    pub fn solve_transposed(&self, beta: &[f32], w: &mut [f32], width: usize) {
        for i in (1..self.rows).rev() {
            let (before, row) = w.split_at_mut(i * width);
            let row = &row[..width];
            let overlap = &self.overlap[i * self.rows..][..i];
            wide!({
                for (w, overlap) in before.chunks_exact_mut(width).zip(overlap) {
                    let factor = beta[i] * overlap;
                    for (w, row) in w.iter_mut().zip(row) {
                        *w -= factor * row;
                    }
                }
            });
        }
    }
}

/// `a · bᵀ` of this shape.
pub fn product(a: Mat, b: Mat, [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0; rows * columns];
    matmul(&mut out, columns, a, b.t(), false);
    out
}

/// Multiplies each row of `width` numbers by its factor.
pub fn scale(rows: &mut [f32], width: usize, factors: &[f32]) {
    wide!({
        for (row, factor) in rows.chunks_exact_mut(width).zip(factors) {
            row.iter_mut().for_each(|v| *v *= factor);
        }
    });
}
