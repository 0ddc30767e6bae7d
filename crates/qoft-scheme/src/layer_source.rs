//! The tensors of one layer.

use qoft_kernels::{Matrix, WeightError};
use safetensors::Dtype;
use serde_json::Value;

use crate::backend::QuantBackend;
use crate::checkpoint::{Checkpoint, NewTensor, TensorView};
use crate::error::{Error, Result};

/// The tensors of one layer, with the checkpoint's configuration.
#[derive(Debug, Clone, Copy)]
pub struct LayerSource<'a> {
    checkpoint: &'a Checkpoint,
    path: &'a str,
    shape: Option<[usize; 2]>,
    fan_in_fan_out: bool,
}

impl<'a> LayerSource<'a> {
    /// The layer at module path `path`.
    pub fn new(checkpoint: &'a Checkpoint, path: &'a str) -> Self {
        Self {
            checkpoint,
            path,
            shape: None,
            fan_in_fan_out: false,
        }
    }

    /// Says which `[out_features, in_features]` the model expects.
    #[must_use]
    pub fn expecting(self, shape: [usize; 2]) -> Self {
        Self {
            shape: Some(shape),
            ..self
        }
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

    /// The `[out_features, in_features]` that the model expects, if known.
    pub fn expected_shape(&self) -> Option<[usize; 2]> {
        self.shape
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
    pub fn sibling<'b>(&self, path: &'b str) -> LayerSource<'b>
    where
        'a: 'b,
    {
        LayerSource::new(self.checkpoint, path)
    }

    /// The same layer in another state of its checkpoint.
    pub fn within<'b>(&self, checkpoint: &'b Checkpoint) -> LayerSource<'b>
    where
        'a: 'b,
    {
        LayerSource {
            checkpoint,
            ..*self
        }
    }

    /// The checkpoint's `config.json`.
    pub fn config(&self) -> &'a Value {
        self.checkpoint.config()
    }

    /// The checkpoint's `quantization_config`.
    pub fn quantization_config(&self) -> Option<&'a Value> {
        self.checkpoint.quantization_config()
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

    /// A tensor `path.suffix` to be written.
    pub fn new_tensor(
        &self,
        suffix: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> NewTensor {
        NewTensor {
            layer: self.path.to_owned(),
            suffix: suffix.into(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        }
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
        let Some(bias) = self.get("bias") else {
            return Ok(None);
        };
        bias.expect_shape(&[out_features])?
            .to_finite_f32()
            .map(Some)
    }

    /// Fails unless the model expects `shape` or expects nothing.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn check_shape(&self, backend: &dyn QuantBackend, shape: [usize; 2]) -> Result<()> {
        match self.shape {
            Some(expected) if expected != shape => Err(self.error(
                backend,
                format!(
                    "weight of [out_features, in_features] {shape:?}, config.json says {expected:?}"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Fails unless a changed weight has the layer's own shape.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn check_weight(
        &self,
        backend: &dyn QuantBackend,
        weight: &Matrix,
        shape: [usize; 2],
    ) -> Result<()> {
        if weight.shape == shape {
            return Ok(());
        }
        let reason = format!("a weight of {:?} for one of {shape:?}", weight.shape);
        Err(self.error(backend, reason))
    }

    /// An error about this layer.
    pub fn error(&self, backend: &dyn QuantBackend, reason: impl ToString) -> Error {
        Error::Layer {
            layer: self.path.to_owned(),
            backend: backend.name().to_owned(),
            reason: reason.to_string(),
        }
    }

    /// For `map_err`: the parts of this layer do not make a weight.
    pub fn weight_error(&self, backend: &dyn QuantBackend) -> impl FnOnce(WeightError) -> Error {
        let (layer, backend) = (self.path.to_owned(), backend.name().to_owned());
        move |e| Error::Layer {
            layer,
            backend,
            reason: e.to_string(),
        }
    }
}
