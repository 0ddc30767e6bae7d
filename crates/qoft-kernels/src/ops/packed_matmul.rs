//! The product with a packed weight, which is decoded meanwhile.

use rayon::prelude::*;

use super::many_rows::many_rows;
use super::one_row::{in_order, packed_matmul_each};
use crate::weight::PackedWeight;

/// `x · Wᵀ` for `x` of `[rows, in_features]`, or with `transpose` `x · W` for
/// `[rows, out_features]`.
///
/// # Panics
/// If the length of `x` is no multiple of the weight's dimension.
pub fn packed_matmul(x: &[f32], weight: &dyn PackedWeight, transpose: bool) -> Vec<f32> {
    let [n, k] = weight.shape();
    let from = if transpose { n } else { k };
    assert_eq!(
        x.len() % from,
        0,
        "x has {} elements, rows of {from} expected",
        x.len()
    );
    let rows = x.len() / from;
    if rows == 1 && !transpose {
        let [y] = packed_matmul_each([(x, weight)]);
        return y;
    }
    let dtype = weight.compute_dtype();
    match weight.reordered() {
        None => many_rows(x, weight, transpose, dtype),
        Some((sorted, places)) if transpose => {
            let y = many_rows(x, sorted, true, dtype);
            each_row(&y, k, |row, out| {
                for (out, &place) in out.iter_mut().zip(places) {
                    *out = row[place as usize];
                }
            })
        }
        Some((sorted, places)) => {
            let x = each_row(x, k, |row, out| in_order(row, places, out));
            many_rows(&x, sorted, false, dtype)
        }
    }
}

/// Makes new rows from rows of `k` values.
fn each_row(x: &[f32], k: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let rows = out.par_chunks_exact_mut(k).zip(x.par_chunks_exact(k));
    rows.for_each(|(out, row)| f(row, out));
    out
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
