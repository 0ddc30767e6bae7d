//! A frozen layer norm with a bias.

use burn::tensor::Tensor;
use qoft_core::{Result, ops};

use crate::loader::Loader;

/// Norm of the last dimension, with its weight and bias.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f32,
}

impl LayerNorm {
    /// Loads the norm at a module path.
    pub fn load(loader: &Loader, path: &str, width: usize, eps: f32) -> Result<Self> {
        Ok(Self {
            weight: loader.vector(&format!("{path}.weight"), width)?,
            bias: loader.vector(&format!("{path}.bias"), width)?,
            eps,
        })
    }

    /// `x` of `[batch, time, width]`, normalized.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        ops::layer_norm(x, self.weight.clone(), self.eps) + self.bias.clone().unsqueeze()
    }

    /// Number of weights and biases.
    pub fn parameters(&self) -> usize {
        2 * self.weight.dims()[0]
    }
}
