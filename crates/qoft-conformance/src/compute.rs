//! Products with the packed weight against the dense definition.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use qoft_core::{Matrix, PackedWeight, Purpose, default_device, ops};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::layer::Layer;

/// The device under test.
pub(crate) fn device() -> Device {
    default_device().unwrap_or_else(|e| panic!("{e}"))
}

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
        let [y, dx] = products(&weight, &x, &dy);
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
    check_exact(layer, &weight, &dense);
}

/// Rows of the identity pick out weights, which are exact: kernels decode as the library does.
fn check_exact(layer: &Layer, weight: &Arc<dyn PackedWeight>, dense: &Matrix) {
    let [n, k] = dense.shape;
    let identity = |size: usize, rows: &[usize]| {
        let mut values = vec![0.0; rows.len() * size];
        for (row, &at) in rows.iter().enumerate() {
            values[row * size + at] = 1.0;
        }
        values
    };
    let rows: Vec<usize> = (0..k.max(n)).collect();
    let columns = [rows.iter().map(|row| row % k).collect(), vec![k - 1, k / 2]];
    for columns in columns {
        let rows: Vec<usize> = (0..columns.len()).map(|row| row % n).collect();
        let [y, dx] = products(weight, &identity(k, &columns), &identity(n, &rows));
        for (y, column) in y.chunks_exact(n).zip(columns) {
            let expected = dense.rows().map(|row| row[column]);
            assert!(y.iter().copied().eq(expected), "{layer}: column {column}");
        }
        for (dx, row) in dx.chunks_exact(k).zip(rows) {
            assert_eq!(dx, dense.row(row), "{layer}: row {row}");
        }
    }
}

/// `x · Wᵀ`, and the gradient of `x` from that of the product.
fn products(weight: &Arc<dyn PackedWeight>, x: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
    let [n, k] = weight.shape();
    let rows = x.len() / k;
    let matrix = |values: &[f32], shape: [usize; 2], device: &Device| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    let x = matrix(x, [rows, k], &device().autodiff()).require_grad();
    let y = ops::packed_matmul(x.clone(), weight);
    let gradients = (y.clone() * matrix(dy, [rows, n], &device()))
        .sum()
        .backward();
    let dx = x.grad(&gradients).expect("a gradient");
    [y.inner(), dx].map(|tensor| tensor.into_data().iter::<f32>().collect())
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
