//! A dense weight on its way into a scheme.

use std::fmt::Display;

use qoft_kernels::{FloatFormat, Matrix};
use safetensors::Dtype;

use crate::checkpoint::NewTensor;
use crate::error::Error;

/// A dense weight that is to be quantized.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DenseLayer<'a> {
    /// Module path, which the new tensors get.
    pub path: &'a str,
    /// The values, `[out_features, in_features]`, all of them finite.
    pub weight: &'a Matrix,
    /// The dtype that they have in the model. Some libraries compute in it or write it down.
    pub format: FloatFormat,
    /// Name of the backend that quantizes it.
    backend: &'static str,
}

impl<'a> DenseLayer<'a> {
    /// The weight of the layer at module path `path`, whose values are numbers of `format`, on its
    /// way into the scheme of `backend`.
    pub(crate) fn new(
        path: &'a str,
        weight: &'a Matrix,
        format: FloatFormat,
        backend: &'static str,
    ) -> Self {
        Self {
            path,
            weight,
            format,
            backend,
        }
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

    /// An error: the weight does not become such a layer.
    pub fn error(&self, reason: impl ToString) -> Error {
        Error::Quantize {
            layer: self.path.to_owned(),
            backend: self.backend.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// The same for a weight of sizes that the scheme or its settings cannot have; `expected` says which
    /// they can.
    pub fn sizes_error(&self, expected: impl Display) -> Error {
        let [n, k] = self.weight.shape;
        self.error(format!(
            "expected {expected}, found {n} × {k} (out_features × in_features)"
        ))
    }
}
