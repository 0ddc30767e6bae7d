//! The tensors of one layer.

use qoft_kernels::Matrix;
use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, NewTensor};
use crate::error::{Error, Result};
use crate::layer_kind::LayerKind;
use crate::mapped::TensorView;

/// The tensors of one layer of a checkpoint, and what the model knows about it.
#[derive(Debug, Clone, Copy)]
pub struct LayerSource<'a> {
    checkpoint: &'a Checkpoint,
    path: &'a str,
    shape: Option<[usize; 2]>,
    kind: LayerKind,
    fan_in_fan_out: bool,
    /// Name of the backend that claimed it.
    owner: Option<&'static str>,
}

impl<'a> LayerSource<'a> {
    /// The layer at module path `path`, for which the model expects `[out_features, in_features]`
    /// `shape`; `None` where no model is known.
    pub fn new(checkpoint: &'a Checkpoint, path: &'a str, shape: Option<[usize; 2]>) -> Self {
        Self {
            checkpoint,
            path,
            shape,
            kind: LayerKind::Linear,
            fan_in_fan_out: false,
            owner: None,
        }
    }

    /// The same layer in another checkpoint, in which layers were replaced.
    #[must_use]
    pub fn within<'b>(&self, checkpoint: &'b Checkpoint) -> LayerSource<'b>
    where
        'a: 'b,
    {
        LayerSource {
            checkpoint,
            ..*self
        }
    }

    /// Says what kind of layer it is in the model. Unless it is said, it is a linear one.
    #[must_use]
    pub fn of_kind(self, kind: LayerKind) -> Self {
        Self { kind, ..self }
    }

    /// Says that the model has a dense weight of this layer as `[in_features, out_features]`, the
    /// other way round than usual: transformers' `Conv1D`. Quantized weights are stored as
    /// `[out_features, in_features]` all the same.
    #[must_use]
    pub fn fan_in_fan_out(self) -> Self {
        Self {
            fan_in_fan_out: true,
            ..self
        }
    }

    /// The module path, `model.layers.0.self_attn.q_proj`.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The `[out_features, in_features]` that the model expects, if known. Schemes look at it where
    /// the tensors alone do not tell the shape; others need not, since shapes are compared anyway.
    pub fn expected_shape(&self) -> Option<[usize; 2]> {
        self.shape
    }

    /// What kind of layer it is in the model.
    pub fn kind(&self) -> LayerKind {
        self.kind
    }

    /// Whether the model has a dense weight of this layer as `[in_features, out_features]`, see
    /// [`Self::fan_in_fan_out`].
    pub fn is_fan_in_fan_out(&self) -> bool {
        self.fan_in_fan_out
    }

    /// A weight of `[out_features, in_features]` as the model has it where it is dense.
    pub fn dense_layout(&self, weight: Matrix) -> Matrix {
        if self.is_fan_in_fan_out() {
            weight.transposed()
        } else {
            weight
        }
    }

    /// Another layer of the same checkpoint, for schemes whose layers depend on each other.
    #[must_use]
    pub fn sibling<'b>(&self, path: &'b str) -> LayerSource<'b>
    where
        'a: 'b,
    {
        LayerSource {
            path,
            shape: None,
            kind: LayerKind::Linear,
            fan_in_fan_out: false,
            ..*self
        }
    }

    /// Whether the layer has a tensor of this name.
    pub fn has(&self, suffix: &str) -> bool {
        self.get(suffix).is_some()
    }

    /// The tensor `path.suffix`.
    pub fn get(&self, suffix: &str) -> Option<TensorView> {
        self.checkpoint.get(&format!("{}.{suffix}", self.path))
    }

    /// The tensor `path.suffix`, which must be there.
    ///
    /// # Errors
    /// If it is missing.
    pub fn tensor(&self, suffix: &str) -> Result<TensorView> {
        self.checkpoint.tensor(&format!("{}.{suffix}", self.path))
    }

    /// What the files say of the parameter `path.parameter`, see [`Checkpoint::metadata`].
    pub fn metadata(&self, parameter: &str) -> Option<&'a str> {
        let name = format!("{}.{parameter}", self.path);
        self.checkpoint.metadata().get(&name).map(String::as_str)
    }

    /// Suffixes of all tensors of this layer.
    pub fn suffixes(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let skip = self.path.len() + 1;
        self.checkpoint
            .under(self.path)
            .map(move |name| &name[skip..])
    }

    /// The optional bias of `out_features` finite values.
    ///
    /// # Errors
    /// If it has another shape or dtype.
    pub fn bias(&self, out_features: usize) -> Result<Option<Vec<f32>>> {
        self.get(BIAS)
            .map(|tensor| tensor.expect_shape(&[out_features])?.to_finite_f32())
            .transpose()
    }

    /// A tensor `path.suffix` to be written.
    pub fn new_tensor(
        &self,
        suffix: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> NewTensor {
        NewTensor::new(self.path, suffix, dtype, shape, bytes)
    }

    /// The tensor `path.suffix` with other bytes, to be written; dtype and shape stay.
    ///
    /// # Errors
    /// If it is missing.
    pub fn rewritten(&self, suffix: &str, bytes: Vec<u8>) -> Result<NewTensor> {
        let tensor = self.tensor(suffix)?;
        Ok(self.new_tensor(suffix, tensor.dtype(), tensor.shape(), bytes))
    }

    /// The tensor `path.suffix` as it is, to be written.
    ///
    /// # Errors
    /// If it is missing.
    pub fn copy(&self, suffix: &str) -> Result<NewTensor> {
        self.rewritten(suffix, self.tensor(suffix)?.bytes().to_vec())
    }

    /// All tensors of the layer but its bias: those in `changed` (of which some may be of other
    /// layers), and copies of the others.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn with_rest(&self, mut changed: Vec<NewTensor>) -> Result<Vec<NewTensor>> {
        let own = changed.iter().filter(|tensor| tensor.layer == self.path);
        let own: Vec<String> = own.map(|tensor| tensor.suffix.clone()).collect();
        let kept = self.suffixes().filter(|name| *name != BIAS);
        let kept = kept.filter(|name| !own.iter().any(|own| own == name));
        for name in kept {
            changed.push(self.copy(name)?);
        }
        Ok(changed)
    }

    /// An error about this layer.
    pub fn error(&self, reason: impl ToString) -> Error {
        Error::Layer {
            layer: self.path.to_owned(),
            backend: self.owner().to_owned(),
            reason: reason.to_string(),
            source: None,
        }
    }

    /// An error: the scheme that has claimed this layer cannot do `what`.
    pub fn incapable(&self, what: &str) -> Error {
        Error::Incapable {
            layer: self.path.to_owned(),
            backend: self.owner().into(),
            what: what.into(),
        }
    }

    /// The backend that has claimed it.
    pub(crate) fn owner(&self) -> &'static str {
        self.owner.unwrap_or("of no backend")
    }

    /// Says which backend has claimed it.
    pub(crate) fn owned_by(self, backend: &'static str) -> Self {
        Self {
            owner: Some(backend),
            ..self
        }
    }
}

/// The plain name of a bias.
pub(crate) const BIAS: &str = "bias";
