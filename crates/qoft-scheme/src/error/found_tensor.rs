//! Tensors of a layer that nobody can read.

use safetensors::Dtype;

use crate::dtype_name::dtype_name;

/// A tensor of a layer that nobody can read, as messages have it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundTensor {
    /// Its name below the layer's path.
    pub name: String,
    /// Its dtype in the file.
    pub dtype: Dtype,
    /// Its shape in the file.
    pub shape: Vec<usize>,
}

impl FoundTensor {
    /// The tensor `name` below the path of its layer.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.to_owned(),
        }
    }
}

impl std::fmt::Display for FoundTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dtype = dtype_name(self.dtype);
        write!(f, "{} of {dtype} {:?}", self.name, self.shape)
    }
}

pub(super) fn list(tensors: &[FoundTensor]) -> String {
    let tensors: Vec<String> = tensors.iter().map(ToString::to_string).collect();
    match tensors[..] {
        [] => "none".into(),
        _ => tensors.join(", "),
    }
}
