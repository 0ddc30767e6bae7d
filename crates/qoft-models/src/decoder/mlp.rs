//! The feed-forward part of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::Activation;
use qoft_core::ops::{self, Traced};
use qoft_core::{Layer, Linear, Result, Walk, walk};

use crate::loader::Loader;

/// Feed-forward layers, described.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MlpConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside.
    pub inner: usize,
    /// What comes before the last layer.
    pub input: MlpInput,
    /// What the layers are called.
    pub names: MlpNames,
    /// Whether all layers have biases.
    pub bias: bool,
    /// What the gate goes through, or what there is without one.
    pub activation: Activation,
}

/// The layers that the input meets, with an activation `f`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MlpInput {
    /// `f(gate(x)) · up(x)`, a layer for each.
    Gated,
    /// The same from one layer, whose outputs stand side by side.
    GatedFused,
    /// `f(up(x))`.
    Plain,
}

/// What files call the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the usual names")]
#[non_exhaustive]
pub struct MlpNames {
    pub gate_proj: &'static str,
    pub up_proj: &'static str,
    pub gate_up_proj: &'static str,
    pub down_proj: &'static str,
}

impl MlpNames {
    /// The usual ones.
    pub const USUAL: Self = Self {
        gate_proj: "gate_proj",
        up_proj: "up_proj",
        gate_up_proj: "gate_up_proj",
        down_proj: "down_proj",
    };

    /// Of layers without a gate.
    pub const fn plain(up_proj: &'static str, down_proj: &'static str) -> Self {
        Self {
            up_proj,
            down_proj,
            ..Self::USUAL
        }
    }
}

impl MlpConfig {
    /// Single layers without biases under the usual names, `[inner, hidden]`, and a gate that goes through
    /// `silu`.
    pub fn new([inner, hidden]: [usize; 2]) -> Self {
        Self {
            hidden,
            inner,
            input: MlpInput::Gated,
            names: MlpNames::USUAL,
            bias: false,
            activation: Activation::Silu,
        }
    }

    /// The layers that read the norm before it.
    pub(super) fn readers(&self) -> Vec<&'static str> {
        match self.input {
            MlpInput::Gated => vec![self.names.gate_proj, self.names.up_proj],
            MlpInput::GatedFused => vec![self.names.gate_up_proj],
            MlpInput::Plain => vec![self.names.up_proj],
        }
    }
}

/// `down(f(gate(x)) · up(x))` with an activation `f`, or `down(f(up(x)))`.
#[derive(Module, Debug)]
pub struct Mlp {
    gate: Option<Linear>,
    up: Option<Linear>,
    gate_up: Option<Linear>,
    down: Linear,
    #[module(skip)]
    names: MlpNames,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// Makes the layers.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load(loader: &Loader, config: &MlpConfig) -> Result<Self> {
        let (hidden, inner, names) = (config.hidden, config.inner, config.names);
        let input = |kinds: &[MlpInput], name: &str, out: usize| -> Result<Option<Linear>> {
            let load = || loader.linear(name, [out, hidden], config.bias);
            kinds.contains(&config.input).then(load).transpose()
        };
        use MlpInput::{Gated, GatedFused, Plain};
        let mlp = Self {
            gate: input(&[Gated], names.gate_proj, inner)?,
            up: input(&[Gated, Plain], names.up_proj, inner)?,
            gate_up: input(&[GatedFused], names.gate_up_proj, 2 * inner)?,
            down: loader.linear(names.down_proj, [hidden, inner], config.bias)?,
            names,
            activation: config.activation,
        };
        match config.input {
            Gated => loader.feeds(names.up_proj, 0, &[names.down_proj]),
            GatedFused => loader.feeds(names.gate_up_proj, inner, &[names.down_proj]),
            // An activation is between them.
            Plain => {}
        }
        Ok(mlp)
    }

    /// The layers on the rows of `x`, `[rows, hidden]`.
    pub fn forward(&self, x: Traced<2>) -> Tensor<2> {
        let [gate, up] = match (&self.gate, &self.up, &self.gate_up) {
            (Some(gate), Some(up), _) => Linear::forward_each([gate, up], x),
            (None, Some(up), _) => {
                let inner = self.down.keep(up.forward(x));
                return self.down.forward(ops::activation(inner, self.activation));
            }
            (_, None, fused) => {
                let fused = fused.as_ref().expect("layers of one kind");
                let both = fused.forward(x);
                let inner = self.down.in_features();
                let half = |start| both.clone().narrow(1, start, inner);
                [half(0), half(inner)]
            }
        };
        let [gate, up] = [gate, up].map(|x| self.down.keep(x));
        self.down.forward(ops::gated(gate, up, self.activation))
    }
}

// The paths are those of the files, not the names of fields.
impl Walk for Mlp {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        let names = self.names;
        self.gate.walk(&walk::join(path, names.gate_proj), visit);
        self.up.walk(&walk::join(path, names.up_proj), visit);
        self.gate_up
            .walk(&walk::join(path, names.gate_up_proj), visit);
        self.down.walk(&walk::join(path, names.down_proj), visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        let names = self.names;
        self.gate
            .walk_mut(&walk::join(path, names.gate_proj), visit);
        self.up.walk_mut(&walk::join(path, names.up_proj), visit);
        self.gate_up
            .walk_mut(&walk::join(path, names.gate_up_proj), visit);
        self.down
            .walk_mut(&walk::join(path, names.down_proj), visit);
    }
}
