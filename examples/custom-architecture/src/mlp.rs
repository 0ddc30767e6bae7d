//! The feed-forward part of a block.

use qoft_core::burn::module::Module;
use qoft_core::burn::tensor::Tensor;
use qoft_core::kernels::ops::Activation;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Result, Walk, burn};
use qoft_models::Loader;

use crate::config::Starcoder2Config;

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
    pub fn load(loader: &Loader, config: &Starcoder2Config) -> Result<Self> {
        let (hidden, inner) = (config.attention.hidden, config.inner);
        Ok(Self {
            c_fc: loader.linear("c_fc", [inner, hidden], config.bias)?,
            c_proj: loader.linear("c_proj", [hidden, inner], config.bias)?,
            activation: config.activation,
        })
    }

    /// The layers on the rows of `x`, `[rows, hidden]`.
    pub fn forward(&self, x: Traced<2>) -> Tensor<2> {
        let inner = self.c_proj.keep(self.c_fc.forward(x));
        let inner = ops::activation(inner, self.activation);
        self.c_proj.forward(inner)
    }
}
