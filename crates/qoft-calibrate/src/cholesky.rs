//! The Cholesky factor of a large matrix.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::{MatMut, Par};

/// Replaces the lower triangle of the `n` × `n` matrix `a` by that of `L`, where `L · Lᵀ = a`. The
/// upper triangle is not read; afterwards it has any values.
///
/// Returns whether `a` is positive definite; if not, `a` is left unfinished.
pub(crate) fn factor(a: &mut [f64], n: usize) -> bool {
    let threads = Par::rayon(0);
    let scratch = cholesky_in_place_scratch::<f64>(n, threads, Default::default());
    let done = cholesky_in_place(
        MatMut::from_row_major_slice_mut(a, n, n),
        Default::default(),
        threads,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    );
    // What is infinite passes as positive.
    done.is_ok() && (0..n).all(|i| a[i * n + i].is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

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
