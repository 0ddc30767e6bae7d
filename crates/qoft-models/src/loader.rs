//! Layers of a checkpoint, checked against the model's sizes.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use qoft_core::{
    Checkpoint, Embedding, LayerSource, Linear, LoadOptions, Norm, Registry, Result, dense_weight,
};

/// What all parts of a model load from.
pub struct Loader<'a> {
    /// The tensors.
    pub checkpoint: &'a Checkpoint,
    /// The quantization schemes.
    pub registry: &'a Registry,
    /// How to load layers.
    pub options: &'a LoadOptions,
    /// Where norms and biases live.
    pub device: &'a Device,
}

impl Loader<'_> {
    /// The layer at a module path. Its bias is what the checkpoint has; `bias` demands one.
    pub fn linear(&self, path: &str, [out, input]: [usize; 2], bias: bool) -> Result<Linear> {
        // Without any tensor no backend could claim the layer; what is missing is the better news.
        if self.checkpoint.under(path).next().is_none() {
            self.checkpoint.tensor(&format!("{path}.weight"))?;
        }
        if bias {
            self.checkpoint.tensor(&format!("{path}.bias"))?;
        }
        let source = LayerSource::new(self.checkpoint, path).expecting([out, input]);
        let loaded = self.registry.load(&source, self.options)?;
        let linear = Linear::new(loaded, self.device);
        Ok(match source.is_fan_in_fan_out() {
            true => linear.fan_in_fan_out(),
            false => linear,
        })
    }

    /// The norm of the root mean square at a module path.
    pub fn root_mean_square(&self, path: &str, width: usize, eps: f32) -> Result<Norm> {
        let weight = self.vector(&format!("{path}.weight"), width)?;
        Ok(Norm::root_mean_square(weight, eps))
    }

    /// The layer norm at a module path.
    pub fn layer_norm(&self, path: &str, width: usize, eps: f32) -> Result<Norm> {
        let weight = self.vector(&format!("{path}.weight"), width)?;
        let bias = self.vector(&format!("{path}.bias"), width)?;
        Ok(Norm::layer(weight, bias, eps))
    }

    /// The tensor of this name, `[width]`.
    fn vector(&self, name: &str, width: usize) -> Result<Tensor<1>> {
        let tensor = self.checkpoint.tensor(name)?;
        let values = tensor.expect_shape(&[width])?.to_finite_f32()?;
        Ok(Tensor::from_data(values.as_slice(), self.device))
    }

    /// The embedding at a module path, whose table stays on the memory map.
    pub fn embedding(&self, path: &str, shape: [usize; 2]) -> Result<Embedding> {
        let tensor = self.checkpoint.tensor(&format!("{path}.weight"))?;
        tensor.expect_shape(&shape)?;
        Ok(Embedding::new(Arc::new(dense_weight(&tensor)?)))
    }
}
