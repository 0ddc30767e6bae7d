//! Products with the packed weight against the dense definition.

use qoft_core::kernels::ops::packed_matmul;
use qoft_core::{Matrix, Purpose};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::subject::Layer;

/// So many values between −1 and 1.
pub(crate) fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// `x · Wᵀ` and `dy · W` equal the sums of the definition, for few rows and for many.
pub(crate) fn check(layer: &Layer) {
    let weight = layer.load(Purpose::Forward).weight;
    let dense = Matrix::decode(&*weight);
    let [n, k] = dense.shape;
    let w = |i: usize, j: usize| f64::from(dense.values[i * k + j]);
    for rows in [1, 3, 9] {
        let (x, dy) = (random(rows * k, 1), random(rows * n, 2));
        let y = packed_matmul(&x, &*weight, false);
        let dx = packed_matmul(&dy, &*weight, true);
        for row in 0..rows {
            for i in 0..n {
                let terms = (0..k).map(|j| f64::from(x[row * k + j]) * w(i, j));
                close(layer, "forward", y[row * n + i], terms);
            }
            for j in 0..k {
                let terms = (0..n).map(|i| f64::from(dy[row * n + i]) * w(i, j));
                close(layer, "gradient of the input", dx[row * k + j], terms);
            }
        }
    }
}

/// The sum of the terms, up to what rounding each of them to `f32` may cost.
fn close(layer: &Layer, what: &str, found: f32, terms: impl Iterator<Item = f64>) {
    let (mut sum, mut size) = (0.0, 0.0);
    for term in terms {
        sum += term;
        size += term.abs();
    }
    let off = (f64::from(found) - sum).abs();
    assert!(
        off <= 2e-6 * size,
        "{layer}: {what}: {found}, expected {sum}"
    );
}
