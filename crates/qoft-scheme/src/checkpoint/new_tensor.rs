//! A tensor that waits to be written.

use safetensors::Dtype;

/// A tensor of a layer that is to be written.
#[derive(Debug, Clone, PartialEq)]
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
    /// The name in the file.
    pub fn name(&self) -> String {
        format!("{}.{}", self.layer, self.suffix)
    }
}
