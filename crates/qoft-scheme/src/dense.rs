//! The backend of layers that are not quantized; the last one asked.

use std::sync::Arc;

use qoft_kernels::{DenseWeight, Matrix, PackedWeight, transpose};

use crate::backend::{Capabilities, LoadedLinear, QuantBackend};
use crate::checkpoint::{NewTensor, TensorView};
use crate::error::Result;
use crate::layer_source::LayerSource;
use crate::options::{LoadOptions, RequantizeOptions};
use crate::registry::Registration;

/// Dense `f32`, `f16` or `bf16` layers, kept in their dtype on the memory map.
#[derive(Debug, Clone, Copy)]
pub struct Dense;

/// The registration of [`Dense`].
pub static REGISTRATION: Registration = Registration {
    order: 10_000,
    backend: &Dense,
};

crate::register_backend!(REGISTRATION);

impl QuantBackend for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            requantize: true,
            ..Capabilities::LINEAR
        }
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        let plain = |suffix| suffix == "weight" || suffix == "bias";
        layer.suffixes().all(plain)
            && layer
                .get("weight")
                .is_some_and(|w| w.shape().len() == 2 && w.float_format().is_ok())
    }

    fn load(&self, layer: &LayerSource, _options: &LoadOptions) -> Result<LoadedLinear> {
        let tensor = layer.tensor("weight")?;
        let weight = match layer.is_fan_in_fan_out() {
            true => transposed_weight(&tensor)?,
            false => dense_weight(&tensor)?,
        };
        layer.check_shape(self, weight.shape())?;
        let bias = layer.bias(weight.shape()[0])?;
        Ok(LoadedLinear {
            weight: Arc::new(weight),
            bias,
            input_quantizer: None,
        })
    }

    fn requantize(
        &self,
        layer: &LayerSource,
        weight: &Matrix,
        _options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        let format = layer.tensor("weight")?.float_format()?;
        let bytes = format.to_bytes(&layer.dense_layout(weight.clone()).values);
        layer.rewritten("weight", bytes).map(|tensor| vec![tensor])
    }
}

/// A matrix of a checkpoint as a weight, without copying it.
///
/// # Errors
/// If the tensor is no float matrix.
pub fn dense_weight(tensor: &TensorView) -> Result<DenseWeight> {
    let (shape, format) = (matrix_shape(tensor)?, tensor.float_format()?);
    Ok(DenseWeight::new(tensor.bytes().clone(), format, shape))
}

/// A matrix of a checkpoint, turned over: a copy in its dtype.
fn transposed_weight(tensor: &TensorView) -> Result<DenseWeight> {
    let ([rows, cols], format) = (matrix_shape(tensor)?, tensor.float_format()?);
    let bytes = transpose(tensor.bytes(), format.size(), [rows, cols]);
    Ok(DenseWeight::new(bytes.into(), format, [cols, rows]))
}

fn matrix_shape(tensor: &TensorView) -> Result<[usize; 2]> {
    let &[rows, cols] = tensor.shape() else {
        return Err(tensor.error("a matrix", format!("shape {:?}", tensor.shape())));
    };
    if rows == 0 || cols == 0 {
        return Err(tensor.error("a matrix with elements", format!("shape [{rows}, {cols}]")));
    }
    Ok([rows, cols])
}
