//! The feed-forward part of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::Activation;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Result, Walk};

use super::attention::Projections;
use crate::loader::Loader;

/// Gated feed-forward layers, described.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MlpConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside.
    pub inner: usize,
    /// How the projections to the gate and to what it lets through are stored.
    pub projections: Projections,
    /// Whether all layers have biases.
    pub bias: bool,
    /// What the gate goes through.
    pub activation: Activation,
}

impl MlpConfig {
    /// Single projections without biases, `[inner, hidden]`, and a gate that goes through `silu`.
    pub fn new([inner, hidden]: [usize; 2]) -> Self {
        Self {
            hidden,
            inner,
            projections: Projections::Single,
            bias: false,
            activation: Activation::Silu,
        }
    }
}

/// `down(f(gate(x)) · up(x))` with an activation `f`.
#[derive(Module, Debug, Walk)]
pub struct Mlp {
    gate_proj: Option<Linear>,
    up_proj: Option<Linear>,
    gate_up_proj: Option<Linear>,
    down_proj: Linear,
    #[module(skip)]
    #[walk(skip)]
    activation: Activation,
}

impl Mlp {
    /// Makes the layers.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load(loader: &Loader, config: &MlpConfig) -> Result<Self> {
        let (hidden, inner) = (config.hidden, config.inner);
        let input = |kind: Projections, name: &str, out: usize| -> Result<Option<Linear>> {
            let load = || loader.linear(name, [out, hidden], config.bias);
            (config.projections == kind).then(load).transpose()
        };
        let mlp = Self {
            gate_proj: input(Projections::Single, "gate_proj", inner)?,
            up_proj: input(Projections::Single, "up_proj", inner)?,
            gate_up_proj: input(Projections::Fused, "gate_up_proj", 2 * inner)?,
            down_proj: loader.linear("down_proj", [hidden, inner], config.bias)?,
            activation: config.activation,
        };
        match config.projections {
            Projections::Single => loader.feeds("up_proj", 0, &["down_proj"]),
            Projections::Fused => loader.feeds("gate_up_proj", inner, &["down_proj"]),
        }
        Ok(mlp)
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
        let [gate, up] = [gate, up].map(|x| self.down_proj.keep(x));
        self.down_proj
            .forward(ops::gated(gate, up, self.activation))
    }
}
