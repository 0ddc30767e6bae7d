//! A tensor that waits to be written.

use safetensors::Dtype;

/// A tensor of a layer that is to be written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NewTensor {
    /// Module path of the layer.
    pub layer: String,
    /// Name below the layer's path, such as `weight.absmax`.
    pub suffix: String,
    /// Dtype in the file.
    pub dtype: Dtype,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Little-endian values.
    pub bytes: Vec<u8>,
}

impl NewTensor {
    /// The tensor `layer.suffix`.
    pub fn new(
        layer: impl Into<String>,
        suffix: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> Self {
        Self {
            layer: layer.into(),
            suffix: suffix.into(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        }
    }

    /// The name in the file.
    pub fn name(&self) -> String {
        format!("{}.{}", self.layer, self.suffix)
    }
}
