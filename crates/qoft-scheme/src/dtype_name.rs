//! How messages name dtypes.

use safetensors::Dtype;

/// The dtype's name as safetensors files spell it.
pub fn dtype_name(dtype: Dtype) -> String {
    format!("{dtype:?}")
}
