//! A tensor of a checkpoint, not yet read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use qoft_kernels::{FloatFormat, Floats};
use safetensors::Dtype;

use super::part::TensorPart;
use crate::dtype_name::dtype_name;
use crate::error::{Error, Result};

/// Name, dtype, shape and bytes of a tensor; the bytes lie on the memory map.
#[derive(Debug, Clone)]
pub struct TensorView {
    file: Arc<PathBuf>,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl TensorView {
    pub(super) fn new(
        file: Arc<PathBuf>,
        name: &str,
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: Bytes,
    ) -> Self {
        Self {
            file,
            name: name.to_owned(),
            dtype,
            shape,
            bytes,
        }
    }

    /// A part of it, under the same name.
    pub(crate) fn part(self, part: TensorPart) -> Self {
        let (shape, range) = part.within(&self.shape, self.bytes.len());
        Self {
            shape,
            bytes: self.bytes.slice(range),
            ..self
        }
    }

    /// Full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Dtype in the file.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shape in the file.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The raw little-endian bytes; cloning them copies nothing.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether the other tensor has the same dtype, shape and bytes.
    pub fn is_same(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes == other.bytes
    }

    /// Demands one of some dtypes.
    ///
    /// # Errors
    /// If the tensor has another one.
    pub fn expect_dtype(&self, dtypes: &[Dtype]) -> Result<&Self> {
        if dtypes.contains(&self.dtype) {
            return Ok(self);
        }
        let names: Vec<_> = dtypes.iter().map(|&d| dtype_name(d)).collect();
        Err(self.error(
            format!("dtype {}", names.join(" or ")),
            dtype_name(self.dtype),
        ))
    }

    /// Demands a shape.
    ///
    /// # Errors
    /// If the tensor has another one.
    pub fn expect_shape(&self, shape: &[usize]) -> Result<&Self> {
        if self.shape == shape {
            return Ok(self);
        }
        Err(self.error(format!("shape {shape:?}"), format!("{:?}", self.shape)))
    }

    /// Rows and columns of a matrix that is not empty.
    ///
    /// # Errors
    /// If the tensor is none.
    pub fn matrix(&self) -> Result<[usize; 2]> {
        match *self.shape {
            [rows, cols] if rows > 0 && cols > 0 => Ok([rows, cols]),
            [_, _] => Err(self.error("a matrix with elements", self.shown_shape())),
            _ => Err(self.error("a matrix", self.shown_shape())),
        }
    }

    /// The shape as messages have it.
    pub fn shown_shape(&self) -> String {
        format!("shape {:?}", self.shape)
    }

    /// The storage format of a dense float tensor.
    ///
    /// # Errors
    /// If the dtype is none of f32, f16, bf16.
    pub fn float_format(&self) -> Result<FloatFormat> {
        let found = || match self.dtype {
            Dtype::F64 => "F64, of which a copy with less can be written in Python: \
                           AutoModelForCausalLM.from_pretrained(DIR, \
                           dtype=torch.float32).save_pretrained(NEW)"
                .into(),
            other => dtype_name(other),
        };
        float_format(self.dtype).ok_or_else(|| self.error("dtype F32 or F16 or BF16", found()))
    }

    /// All values of a float tensor as `f32`.
    ///
    /// # Errors
    /// If the dtype is not a float.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let format = self.float_format()?;
        let mut out = vec![0.0; self.elements()];
        format.decode(&self.bytes, &mut out);
        Ok(out)
    }

    /// As [`Self::to_f32`], and every value must be finite.
    ///
    /// # Errors
    /// If the dtype is not a float or a value is infinite or not a number.
    pub fn to_finite_f32(&self) -> Result<Vec<f32>> {
        let values = self.to_f32()?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let found = format!("{} at element {at}", values[at]);
                Err(self.error("finite values", found))
            }
        }
    }

    /// The one value of a tensor, a finite number above 0; `what` messages call it.
    ///
    /// # Errors
    /// If the dtype is not a float, there are more or fewer values, or it is another number.
    pub fn one_positive(&self, what: &str) -> Result<f32> {
        match *self.to_finite_f32()? {
            [value] if value > 0.0 => Ok(value),
            [value] => Err(self.error(format!("a positive {what}"), value)),
            _ => Err(self.error(format!("one {what}"), self.shown_shape())),
        }
    }

    /// The values of a float tensor in their own dtype, without copying them; all are finite.
    ///
    /// # Errors
    /// If the dtype is not a float or a value is infinite or not a number.
    pub fn floats(&self) -> Result<Floats> {
        let format = self.float_format()?;
        Floats::new(self.bytes.clone(), format)
            .map_err(|_| self.error("finite values", "an infinity or NaN"))
    }

    /// An error about this tensor.
    pub fn error(&self, expected: impl ToString, found: impl ToString) -> Error {
        Error::Tensor {
            file: self.file.to_path_buf(),
            tensor: self.name.clone(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

/// The dtypes of float formats in files.
const FLOATS: [(Dtype, FloatFormat); 3] = [
    (Dtype::F32, FloatFormat::F32),
    (Dtype::F16, FloatFormat::F16),
    (Dtype::BF16, FloatFormat::Bf16),
];

/// The storage format that a dtype stands for; `None` unless it is F32, F16 or BF16.
pub fn float_format(dtype: Dtype) -> Option<FloatFormat> {
    let found = FLOATS.iter().find(|(known, _)| *known == dtype);
    found.map(|&(_, format)| format)
}

/// The dtype of a storage format.
pub fn float_dtype(format: FloatFormat) -> Dtype {
    let found = FLOATS.iter().find(|(_, known)| *known == format);
    found.expect("every format has a dtype").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_format_has_a_dtype() {
        for format in FloatFormat::ALL {
            assert_eq!(float_format(float_dtype(format)), Some(format));
        }
    }
}
