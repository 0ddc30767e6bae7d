//! The layers of a model, as they are known before anything is loaded.

use std::sync::Arc;

use qoft_core::{Checkpoint, LayerKind, LayerSource};

/// Where the inputs of a layer come from: output features of another one, each times something that does
/// not depend on it, and read by nobody else but layers that say the same. So the model computes the
/// same if they are divided by factors there, and multiplied by them in these layers' weights.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct ScaledBy {
    /// Module path of a norm or linear layer.
    pub path: String,
    /// Which of its output features is the first.
    pub first_row: usize,
}

/// A layer that a model has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerSpec {
    /// Module path.
    pub path: String,
    /// What kind of layer it is.
    pub kind: LayerKind,
    /// `[out_features, in_features]`; of a table `[entries, width]`, of a norm `[1, width]`.
    pub shape: [usize; 2],
    /// Whether it has a bias.
    pub bias: bool,
    /// Whether files have a dense weight as `[in_features, out_features]`.
    pub fan_in_fan_out: bool,
    /// Whether the factors of a norm are 1 and the stored weight.
    pub unit_offset: bool,
    /// Module path of the layer whose weight it has, if it has none of its own.
    pub tied_to: Option<String>,
    /// Where its input features come from, if they can be scaled there.
    pub scaled_by: Option<ScaledBy>,
    /// The parameter that its weight is in transformers' model, or is a part of, where it is no module
    /// there.
    pub parameter: Option<Arc<str>>,
    /// Whether it chooses experts: libraries leave its weight dense when they quantize.
    pub routes: bool,
}

impl LayerSpec {
    /// A layer with a weight of its own.
    pub fn new(path: impl Into<String>, kind: LayerKind, shape: [usize; 2]) -> Self {
        Self {
            path: path.into(),
            kind,
            shape,
            bias: false,
            fan_in_fan_out: false,
            unit_offset: false,
            tied_to: None,
            scaled_by: None,
            parameter: None,
            routes: false,
        }
    }

    /// The same with a bias, or without.
    #[must_use]
    pub fn with_bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// The same with a dense weight of `[in_features, out_features]`: transformers' `Conv1D`.
    #[must_use]
    pub fn fan_in_fan_out(self) -> Self {
        Self {
            fan_in_fan_out: true,
            ..self
        }
    }

    /// The same with factors that are 1 and the stored weight, or without: of a norm.
    #[must_use]
    pub fn with_unit_offset(self, unit_offset: bool) -> Self {
        Self {
            unit_offset,
            ..self
        }
    }

    /// The same with the weight of another layer.
    #[must_use]
    pub fn tied_to(self, path: impl Into<String>) -> Self {
        Self {
            tied_to: Some(path.into()),
            ..self
        }
    }

    /// The same as a parameter of transformers' model, or a part of one, and no module there.
    #[must_use]
    pub fn of_parameter(self, parameter: impl Into<Arc<str>>) -> Self {
        Self {
            parameter: Some(parameter.into()),
            ..self
        }
    }

    /// The same as a layer that chooses experts.
    #[must_use]
    pub fn routing(self) -> Self {
        Self {
            routes: true,
            ..self
        }
    }

    /// The tensors of the layer in a checkpoint, with all that the model knows about them.
    pub fn source<'a>(&'a self, checkpoint: &'a Checkpoint) -> LayerSource<'a> {
        let source = LayerSource::new(checkpoint, &self.path, Some(self.shape));
        let source = source.of_kind(self.kind);
        match self.fan_in_fan_out {
            true => source.fan_in_fan_out(),
            false => source,
        }
    }
}
