//! What the modules of a model are made from.

use std::fmt::Display;
use std::sync::Arc;

use burn::tensor::Tensor;
use qoft_core::{CausalConv1d, Embedding, LayerKind, Linear, Norm, Result};

use crate::gathered::Gathered;
use crate::layer_spec::{LayerSpec, ScaledBy};
use crate::norm::{NormConfig, NormKind};

/// A parameter of transformers' model, of which a layer is a part.
#[derive(Debug, Clone)]
pub struct Part {
    parameter: Arc<str>,
    bias: bool,
    fan_in_fan_out: bool,
}

impl Part {
    /// The parameter of this name; its parts are `[out_features, in_features]` and have no biases.
    pub fn of(parameter: impl Into<Arc<str>>) -> Self {
        Self {
            parameter: parameter.into(),
            bias: false,
            fan_in_fan_out: false,
        }
    }

    /// The same with biases, or without.
    #[must_use]
    pub fn with_bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// The same with dense parts that are `[in_features, out_features]`.
    #[must_use]
    pub fn fan_in_fan_out(self) -> Self {
        Self {
            fan_in_fan_out: true,
            ..self
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.parameter
    }
}

/// What the parts of a model are made from: the files, or nothing but their sizes.
///
/// An architecture builds its modules by it once before anything is loaded, to learn which layers
/// there are: then all values are 0. It must not judge by values what to build.
#[derive(Clone)]
pub struct Loader<'a> {
    origin: &'a (dyn Origin + 'a),
    /// Module path of what is built.
    path: String,
}

/// Where layers come from.
pub(crate) trait Origin {
    fn linear(&self, spec: LayerSpec) -> Result<Linear>;

    fn embedding(&self, spec: LayerSpec) -> Result<Embedding>;

    /// Hears of a layer whose tensors are asked for one by one.
    fn plain(&self, _spec: LayerSpec) {}

    /// The values of a tensor of finite floats, under its whole name.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<1>>;

    /// Hears where the inputs of a layer come from.
    fn feeds(&self, _from: &ScaledBy, _into: &str) {}

    /// Hears of a tensor that files may have in the place of those of layers.
    fn gathered(&self, _tensor: Gathered) {}

    /// Hears that a block is made: how many of how many are.
    fn made(&self, _done: usize, _total: usize) {}
}

impl<'a> Loader<'a> {
    pub(crate) fn new(origin: &'a (dyn Origin + 'a), path: impl Into<String>) -> Self {
        Self {
            origin,
            path: path.into(),
        }
    }

    /// For the module `name` inside this one.
    #[must_use]
    pub fn below(&self, name: impl Display) -> Self {
        Self::new(self.origin, self.inside(name))
    }

    /// Module path of what is built.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A linear layer of `[out_features, in_features]`, with a bias or without. A bias that files
    /// have all the same is not read.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others or these sizes, or no scheme claims it.
    pub fn linear(&self, name: &str, shape: [usize; 2], bias: bool) -> Result<Linear> {
        let spec = self.spec(name, LayerKind::Linear, shape).with_bias(bias);
        self.origin.linear(spec)
    }

    /// As [`Self::linear`], for layers whose dense weights files have as
    /// `[in_features, out_features]`: transformers' `Conv1D`.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn conv1d(&self, name: &str, shape: [usize; 2], bias: bool) -> Result<Linear> {
        let spec = self.spec(name, LayerKind::Linear, shape).with_bias(bias);
        self.origin.linear(spec.fan_in_fan_out())
    }

    /// As [`Self::linear`], for a part of a parameter of transformers' model, which has no module for it: a
    /// layer of an expert.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn part(&self, name: &str, shape: [usize; 2], part: &Part) -> Result<Linear> {
        let spec = self.spec(name, LayerKind::Linear, shape);
        let spec = spec.with_bias(part.bias);
        let spec = spec.of_parameter(part.parameter.clone());
        self.origin.linear(match part.fan_in_fan_out {
            true => spec.fan_in_fan_out(),
            false => spec,
        })
    }

    /// As [`Self::linear`], for the layer that chooses experts, whose weight is `parameter` in
    /// transformers' model; some files call it so.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn router(
        &self,
        name: &str,
        shape: [usize; 2],
        bias: bool,
        parameter: &str,
    ) -> Result<Linear> {
        let spec = self.spec(name, LayerKind::Linear, shape).with_bias(bias);
        self.origin.gathered(Gathered::Renamed {
            old: parameter.to_owned(),
            new: format!("{}.weight", spec.path),
        });
        self.origin.linear(spec.of_parameter(parameter).routing())
    }

    /// Says that some files have the weights of all experts, which are in this list, as one tensor
    /// `parameter`: `[experts, shares · out_features, in_features]`, for each expert those of these
    /// layers, one below the other. Whether no file has them otherwise, so that they are written so, too.
    pub fn gathered(&self, parameter: &str, layers: &[&'static str], always: bool) {
        self.origin.gathered(Gathered::Experts {
            name: parameter.to_owned(),
            list: self.path.clone(),
            layers: layers.to_vec(),
            always,
        });
    }

    /// Says that some files call a tensor or module inside this one `old` in place of `name`.
    pub fn also_called(&self, old: &str, name: &str) {
        self.origin.gathered(Gathered::Renamed {
            old: self.inside(old),
            new: self.inside(name),
        });
    }

    /// A table of `[entries, width]`: plain floats, which stay on the memory map, or of a scheme that
    /// has tables.
    ///
    /// # Errors
    /// If it is missing, damaged, of another shape, or of a scheme that has no tables.
    pub fn embedding(&self, name: &str, shape: [usize; 2]) -> Result<Embedding> {
        self.origin
            .embedding(self.spec(name, LayerKind::Embedding, shape))
    }

    /// A norm of a vector of `width` features, see [`Norm::root_mean_square`] and [`Norm::layer`].
    ///
    /// # Errors
    /// If its weight or bias is missing, of another width or not finite.
    pub fn norm(&self, name: &str, width: usize, norm: NormConfig) -> Result<Norm> {
        let spec = self.spec(name, LayerKind::Norm, [1, width]);
        self.origin.plain(spec.with_unit_offset(norm.unit_offset));
        let inside = self.below(name);
        let weight = inside.tensor("weight", [width])?;
        let made = match norm.kind {
            NormKind::RootMeanSquare => Norm::root_mean_square(weight, norm.eps),
            NormKind::Layer { bias } => {
                let load = || inside.tensor("bias", [width]);
                Norm::layer(weight, bias.then(load).transpose()?, norm.eps)
            }
        };
        Ok(made.with_unit_offset(norm.unit_offset))
    }

    /// A causal convolution of each channel by itself, with a bias or without.
    ///
    /// # Errors
    /// If a tensor is missing, of other sizes or not finite.
    pub fn causal_conv1d(
        &self,
        name: &str,
        [channels, width]: [usize; 2],
        bias: bool,
    ) -> Result<CausalConv1d> {
        let spec = self.spec(name, LayerKind::Conv1d, [channels, width]);
        self.origin.plain(spec.with_bias(bias));
        let inside = self.below(name);
        let weight = inside.tensor("weight", [channels, 1, width])?;
        let bias = bias
            .then(|| inside.tensor("bias", [channels]))
            .transpose()?;
        Ok(CausalConv1d::new(weight.reshape([channels, width]), bias))
    }

    /// Says that output features of the layer `from`, from the one of number `first_row` on, are the
    /// input features of those of `into` that there are, and of nothing else, see [`ScaledBy`]. The
    /// layers are made already.
    pub fn feeds(&self, from: &str, first_row: usize, into: &[&str]) {
        let from = ScaledBy {
            path: self.inside(from),
            first_row,
        };
        for name in into {
            self.origin.feeds(&from, &self.inside(name));
        }
    }

    /// A tensor that is no layer's, of finite floats.
    ///
    /// # Errors
    /// If it is missing, of another shape or not finite.
    pub fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        let values = self.origin.tensor(&self.inside(name), &shape)?;
        Ok(values.reshape(shape))
    }

    /// `count` blocks in the list `name`, each made by `load`, which is told its number.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn blocks<B>(
        &self,
        name: &str,
        count: usize,
        mut load: impl FnMut(&Self, usize) -> Result<B>,
    ) -> Result<Vec<B>> {
        let list = self.below(name);
        // The count is the file's word: memory is only taken for blocks that are there.
        let mut blocks = Vec::new();
        for index in 0..count {
            blocks.push(load(&list.below(index), index)?);
            self.origin.made(index + 1, count);
        }
        Ok(blocks)
    }

    fn spec(&self, name: &str, kind: LayerKind, shape: [usize; 2]) -> LayerSpec {
        LayerSpec::new(self.inside(name), kind, shape)
    }

    fn inside(&self, name: impl Display) -> String {
        match self.path.as_str() {
            "" => name.to_string(),
            path => format!("{path}.{name}"),
        }
    }
}
