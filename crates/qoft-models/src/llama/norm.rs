//! A frozen root-mean-square norm.

use burn::tensor::Tensor;
use qoft_core::{Result, ops};

use crate::loader::Loader;

/// Norm of the last dimension, with its weight.
#[derive(Debug, Clone)]
pub struct Norm {
    weight: Tensor<1>,
    eps: f32,
}

impl Norm {
    /// Loads the norm at a module path.
    pub fn load(loader: &Loader, path: &str, width: usize, eps: f32) -> Result<Self> {
        let weight = loader.vector(&format!("{path}.weight"), width)?;
        Ok(Self { weight, eps })
    }

    /// `x` of `[.., width]`, normalized.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::rms_norm(x, self.weight.clone(), self.eps)
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.weight.dims()[0]
    }
}
