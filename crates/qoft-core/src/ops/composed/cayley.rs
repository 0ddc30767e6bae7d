//! From skew-symmetric parameters to rotations.

use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft_kernels::ops::Cayley;

use super::constants::Constants;

/// Newton's method doubles the digits of an inverse with each step: so many are enough for blocks
/// with a norm of up to 50.
const STEPS: usize = 16;

/// Rotations `[r, b, b]` from parameters `[r, b(b−1)/2]`.
pub fn cayley(params: Tensor<2>, op: Cayley) -> Tensor<3> {
    let (blocks, device) = (params.dims()[0], params.device().without_autodiff());
    let constants = BLOCKS.get(op.size, &device, |_| true, || Block::new(op.size, &device));
    let one = constants.one.clone();
    if op.size == 1 {
        return one.expand([blocks, 1, 1]);
    }
    let params = match op.coft_eps {
        Some(eps) => project(params, eps),
        None => params,
    };
    let q = constants.skew(params);
    match op.map.coefficients() {
        Some(coefficients) => series(q, one, &coefficients),
        None => exact(q, one),
    }
}

/// Constants of blocks by their sizes; a model has few.
static BLOCKS: Constants<usize, Block> = Constants::new();

/// What depends on the size of a block alone.
#[derive(Clone)]
struct Block {
    size: usize,
    /// The parameter of each element of a skew-symmetric matrix.
    index: Tensor<1, Int>,
    /// Its sign; 0 on the diagonal. `[1, b²]`.
    sign: Tensor<2>,
    /// The identity, `[1, b, b]`.
    one: Tensor<3>,
}

impl Block {
    fn new(b: usize, device: &Device) -> Self {
        let (mut index, mut sign) = (vec![0i32; b * b], vec![0.0f32; b * b]);
        let pairs = (0..b).flat_map(|i| (i + 1..b).map(move |j| (i, j)));
        for (at, (i, j)) in pairs.enumerate() {
            (index[i * b + j], sign[i * b + j]) = (at as i32, 1.0);
            (index[j * b + i], sign[j * b + i]) = (at as i32, -1.0);
        }
        let one: Vec<f32> = sign.iter().map(|s| 1.0 - s.abs()).collect();
        Self {
            size: b,
            index: Tensor::from_data(TensorData::new(index, [b * b]), device),
            sign: Tensor::from_data(TensorData::new(sign, [1, b * b]), device),
            one: Tensor::from_data(TensorData::new(one, [1, b, b]), device),
        }
    }

    /// The skew-symmetric matrices, `[r, b, b]`.
    fn skew(&self, params: Tensor<2>) -> Tensor<3> {
        let (blocks, b) = (params.dims()[0], self.size);
        (params.select(1, self.index.clone()) * self.sign.clone()).reshape([blocks, b, b])
    }
}

/// Constrained OFT's projection; the gradient passes unchanged.
fn project(params: Tensor<2>, eps: f64) -> Tensor<2> {
    let plain = params.clone().inner();
    let radius = eps / (plain.dims()[0] as f64).sqrt();
    // The full matrix has every parameter twice.
    let norm = (plain.clone().square().sum_dim(1) * 2.0).sqrt();
    let factor = (norm.clamp_min(f32::MIN_POSITIVE).recip() * radius).clamp_max(1.0);
    params + (plain.clone() * factor - plain)
}

/// Horner's rule: `P_j = c_j I + Q · P_(j+1)`.
fn series(q: Tensor<3>, one: Tensor<3>, coefficients: &[f32]) -> Tensor<3> {
    let mut coefficients = coefficients.iter().rev();
    let last = coefficients.next().expect("a series has terms");
    // The product with 0 gives each block its own matrix, and the parameters a gradient.
    let first = q.clone() * 0.0 + one.clone() * *last;
    coefficients.fold(first, |p, &c| q.clone().matmul(p) + one.clone() * c)
}

/// `(I − Q)(I + Q)⁻¹ = 2(I + Q)⁻¹ − I`.
fn exact(q: Tensor<3>, one: Tensor<3>) -> Tensor<3> {
    let sum = q + one.clone();
    let step = |x: Tensor<3>, sum: Tensor<3>| x.clone() * 2.0 - x.clone().matmul(sum.matmul(x));
    let plain = sum.clone().inner();
    // `‖I + Q‖² ≤ 1 + ‖Q‖²`, and a pair of eigenvalues of Q has half of its squared entries.
    let b = one.dims()[1] as f64;
    let squares = plain.clone().square().sum_dim(1).sum_dim(2);
    let bound = (squares - b) * 0.5 + 1.0;
    let start = plain.clone().swap_dims(1, 2) / bound;
    let inverse = (0..STEPS).fold(start, |x, _| step(x, plain.clone()));
    // One more step, which is differentiable: at the inverse its derivative is the inverse's.
    step(inverse, sum) * 2.0 - one
}
