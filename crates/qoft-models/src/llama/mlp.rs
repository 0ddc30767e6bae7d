//! The feed-forward part of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::ops::Traced;
use qoft_core::{Linear, Result, Walk, ops};

use super::config::{DecoderConfig, Family};
use crate::loader::Loader;

/// `down(silu(gate(x)) · up(x))`; gate and up are single or, in phi3, fused.
#[derive(Module, Debug, Walk)]
pub struct Mlp {
    gate_proj: Option<Linear>,
    up_proj: Option<Linear>,
    gate_up_proj: Option<Linear>,
    down_proj: Linear,
}

impl Mlp {
    /// Loads the layers from the module path `path`.
    pub fn load(
        loader: &Loader,
        hidden: usize,
        config: &DecoderConfig,
        path: &str,
    ) -> Result<Self> {
        let inner = config.intermediate_size;
        let fused = config.family == Family::Phi3;
        let input = |wanted: bool, name: &str, out: usize| -> Result<Option<Linear>> {
            let path = format!("{path}.{name}");
            let load = || loader.linear(&path, [out, hidden], config.biases.mlp);
            wanted.then(load).transpose()
        };
        Ok(Self {
            gate_proj: input(!fused, "gate_proj", inner)?,
            up_proj: input(!fused, "up_proj", inner)?,
            gate_up_proj: input(fused, "gate_up_proj", 2 * inner)?,
            down_proj: loader.linear(
                &format!("{path}.down_proj"),
                [hidden, inner],
                config.biases.mlp,
            )?,
        })
    }

    /// The layers on the rows of `x`, `[rows, hidden]`.
    pub fn forward(&self, x: Traced<2>) -> Tensor<2> {
        let [gate, up] = match (&self.gate_proj, &self.up_proj) {
            (Some(gate), Some(up)) => Linear::forward_each([gate, up], x),
            _ => {
                let fused = self.gate_up_proj.as_ref();
                let both = fused.expect("single or fused projections").forward(x);
                let inner = self.down_proj.in_features();
                let half = |start| both.clone().narrow(1, start, inner);
                [half(0), half(inner)]
            }
        };
        self.down_proj.forward(ops::swiglu(gate, up))
    }
}
