//! A frozen root-mean-square norm.

use burn::tensor::Tensor;
use qoft_core::ops;

/// Norm of the last dimension, with its weight.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[width]`.
    pub weight: Tensor<1>,
    /// Added to the mean square.
    pub eps: f32,
}

impl Norm {
    /// `x` of `[.., width]`, normalized.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::rms_norm(x, self.weight.clone(), self.eps)
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.weight.dims()[0]
    }
}
