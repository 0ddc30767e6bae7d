//! The product with a packed weight: tiles are decoded into a panel that stays in the cache.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::gemm::{Mat, MatMut, matmul_into};
use crate::op::{Forward, HostOp, HostView};
use crate::weight::{PackedWeight, Tile};

/// Rows of a panel at most. With [`COLS`] columns a panel takes 256 KiB: it fits a level-2 cache.
const ROWS: usize = 128;
/// Columns of a panel at most.
const COLS: usize = 512;
/// Up to so many rows of x, products are dot products with the decoded rows.
const FEW: usize = 4;

/// `y = x · Wᵀ`, and for the gradient `dx = dy · W`. `x` is not kept.
#[derive(Debug, Clone)]
pub struct PackedMatmul {
    /// The weight, `[out_features, in_features]`.
    pub weight: Arc<dyn PackedWeight>,
}

impl HostOp for PackedMatmul {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let [n, _] = self.weight.shape();
        let mut shape = inputs[0].shape.to_vec();
        *shape.last_mut().expect("rank 1 or more") = n;
        Forward::new(&shape, packed_matmul(inputs[0].data, &*self.weight, false))
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    fn backward(
        &self,
        _inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        vec![Some(packed_matmul(grad.data, &*self.weight, true))]
    }
}

/// `x · Wᵀ` for `x` of `[rows, in_features]`, or with `transpose` `x · W` for
/// `[rows, out_features]`.
///
/// # Panics
/// If the length of `x` is no multiple of the weight's dimension.
pub fn packed_matmul(x: &[f32], weight: &dyn PackedWeight, transpose: bool) -> Vec<f32> {
    let [n, k] = weight.shape();
    let (from, to) = if transpose { (n, k) } else { (k, n) };
    assert_eq!(
        x.len() % from,
        0,
        "x has {} elements, rows of {from} expected",
        x.len()
    );
    let rows = x.len() / from;
    let mut out = vec![0.0; rows * to];
    if rows == 0 {
        return out;
    }
    if rows <= FEW && !transpose {
        few_rows(x, weight, rows, &mut out);
    } else {
        panels(x, weight, transpose, rows, &mut out);
    }
    out
}

/// Each thread owns a band of the output's columns and walks the other dimension in panels.
fn panels(x: &[f32], weight: &dyn PackedWeight, transpose: bool, rows: usize, out: &mut [f32]) {
    let [n, k] = weight.shape();
    let (from, to, band, step) = if transpose {
        (n, k, COLS, ROWS)
    } else {
        (k, n, ROWS, COLS)
    };
    let bands = even_ranges(to, band);
    let steps: Vec<Range<usize>> = (0..from)
        .step_by(step)
        .map(|start| start..(start + step).min(from))
        .collect();
    let dst = MatMut::new(out, rows, to, to);
    bands
        .into_par_iter()
        .for_each_init(Vec::new, |scratch, band| {
            scratch.resize(ROWS * COLS, 0.0);
            let dst = dst.columns(band.start, band.len());
            for step in &steps {
                let (w_rows, w_cols) = if transpose {
                    (step.clone(), band.clone())
                } else {
                    (band.clone(), step.clone())
                };
                let (height, width) = (w_rows.len(), w_cols.len());
                let Tile { data, row_stride } = weight.tile(w_rows, w_cols, scratch);
                let panel = Mat::new(data, height, width, row_stride);
                let panel = if transpose { panel } else { panel.t() };
                let x = Mat::new(&x[step.start..], rows, step.len(), from);
                // SAFETY: `out` outlives the loop, and bands do not overlap.
                unsafe { matmul_into(dst, x, panel, step.start > 0) };
            }
        });
}

/// Splits `0..length` into pieces of at most `most`, so many that all threads get the same work.
fn even_ranges(length: usize, most: usize) -> Vec<Range<usize>> {
    let count = length
        .div_ceil(most)
        .next_multiple_of(rayon::current_num_threads());
    // Multiples of 16 keep whole vectors together.
    let size = length.div_ceil(count).next_multiple_of(16).min(most);
    (0..length)
        .step_by(size)
        .map(|start| start..(start + size).min(length))
        .collect()
}

/// `x · Wᵀ` for a handful of rows: bound by reading the packed bytes.
fn few_rows(x: &[f32], weight: &dyn PackedWeight, rows: usize, out: &mut [f32]) {
    let [n, k] = weight.shape();
    let bands = even_ranges(n, ROWS);
    let results: Vec<(Range<usize>, Vec<f32>)> = bands
        .into_par_iter()
        .map_init(Vec::new, |scratch, band| {
            scratch.resize(COLS, 0.0);
            let mut sums = vec![0.0; rows * band.len()];
            for (i, n) in band.clone().enumerate() {
                for start in (0..k).step_by(COLS) {
                    let cols = start..(start + COLS).min(k);
                    let width = cols.len();
                    let tile = weight.tile(n..n + 1, cols, scratch);
                    for row in 0..rows {
                        let x = &x[row * k + start..][..width];
                        sums[row * band.len() + i] += dot(x, &tile.data[..width]);
                    }
                }
            }
            (band, sums)
        })
        .collect();
    for (band, sums) in results {
        for (row, sums) in sums.chunks_exact(band.len()).enumerate() {
            out[row * n + band.start..][..band.len()].copy_from_slice(sums);
        }
    }
}

/// A dot product in 16 independent sums, which the compiler turns into vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0.0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;
    use crate::DenseWeight;

    fn check(rows: usize, n: usize, k: usize) {
        let (x, dy, w) = (random(rows * k, 1), random(rows * n, 2), random(n * k, 3));
        let weight = DenseWeight::from_f32(&w, [n, k]);
        let (y, dx) = (
            packed_matmul(&x, &weight, false),
            packed_matmul(&dy, &weight, true),
        );
        let close = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-4, "{a} {b}");
        for m in 0..rows {
            for i in 0..n {
                let terms = (0..k).map(|j| f64::from(x[m * k + j]) * f64::from(w[i * k + j]));
                close(y[m * n + i], terms.sum());
            }
            for j in 0..k {
                let terms = (0..n).map(|i| f64::from(dy[m * n + i]) * f64::from(w[i * k + j]));
                close(dx[m * k + j], terms.sum());
            }
        }
    }

    #[test]
    fn products_equal_the_definition() {
        for (rows, n, k) in [
            (1, 3, 5),
            (3, 130, 600),
            (7, 1, 1),
            (9, 300, 1030),
            (5, 17, 33),
        ] {
            check(rows, n, k);
        }
    }

    #[test]
    fn no_rows_give_no_rows() {
        let weight = DenseWeight::from_f32(&[1.0, 2.0], [1, 2]);
        assert!(packed_matmul(&[], &weight, false).is_empty());
    }
}
