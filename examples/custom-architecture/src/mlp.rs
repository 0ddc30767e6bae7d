//! The feed-forward part of a block.

use qoft_core::burn::module::Module;
use qoft_core::burn::tensor::Tensor;
use qoft_core::kernels::ops::Activation;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Result, Walk, burn};
use qoft_models::Loader;

use crate::config::StableLmConfig;

/// `down_proj(activation(gate_proj(x)) · up_proj(x))`.
#[derive(Module, Debug, Walk)]
pub struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    #[module(skip)]
    #[walk(skip)]
    activation: Activation,
}

impl Mlp {
    /// Makes the layers.
    pub fn load(loader: &Loader, config: &StableLmConfig) -> Result<Self> {
        let (hidden, inner) = (config.attention.hidden, config.inner);
        Ok(Self {
            gate_proj: loader.linear("gate_proj", [inner, hidden], false)?,
            up_proj: loader.linear("up_proj", [inner, hidden], false)?,
            down_proj: loader.linear("down_proj", [hidden, inner], false)?,
            activation: config.activation,
        })
    }

    /// The layers on the rows of `x`, `[rows, hidden]`.
    pub fn forward(&self, x: Traced<2>) -> Tensor<2> {
        let inner = Linear::forward_each([&self.gate_proj, &self.up_proj], x);
        let [gate, up] = inner.map(|x| self.down_proj.keep(x));
        self.down_proj
            .forward(ops::gated(gate, up, self.activation))
    }
}
