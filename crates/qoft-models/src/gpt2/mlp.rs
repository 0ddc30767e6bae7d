//! The feed-forward part of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::Activation;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Result, Walk};

use super::config::Gpt2Config;
use crate::loader::Loader;

/// `c_proj(activation(c_fc(x)))`.
#[derive(Module, Debug, Walk)]
pub struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
    #[module(skip)]
    #[walk(skip)]
    activation: Activation,
}

impl Mlp {
    /// Makes the layers.
    pub fn load(loader: &Loader, width: usize, config: &Gpt2Config) -> Result<Self> {
        Ok(Self {
            c_fc: loader.conv1d("c_fc", [config.inner, width], true)?,
            c_proj: loader.conv1d("c_proj", [width, config.inner], true)?,
            activation: config.activation,
        })
    }

    /// The layers on `x` of `[batch, time, hidden]`.
    pub fn forward(&self, x: Traced<3>) -> Tensor<3> {
        let inner = self.c_proj.keep(self.c_fc.forward(x));
        let inner = ops::activation(inner, self.activation);
        self.c_proj.forward(inner)
    }
}
