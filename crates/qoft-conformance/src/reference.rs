//! The dense weights that a folder says its layers stand for.

use std::collections::BTreeMap;
use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{Dtype, Matrix};
use safetensors::SafeTensors;

/// The content of `expected.safetensors`: `<path>.weight` of each quantized layer as `f32`, as
/// the scheme's own library dequantizes it. Empty if the folder has no such file.
///
/// # Panics
/// If the file is damaged, or a weight is no `f32` matrix.
pub fn expected_weights(folder: &Path) -> BTreeMap<String, Matrix> {
    let Ok(file) = std::fs::read(folder.join("expected.safetensors")) else {
        return BTreeMap::new();
    };
    let tensors = SafeTensors::deserialize(&file).expect("expected.safetensors");
    let weights = tensors.iter().filter_map(|(name, tensor)| {
        let path = name.strip_suffix(".weight")?;
        let &[rows, cols] = tensor.shape() else {
            panic!("{name} is no matrix");
        };
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        let mut values = vec![0.0; rows * cols];
        FloatFormat::F32.decode(tensor.data(), &mut values);
        let shape = [rows, cols];
        Some((path.to_owned(), Matrix::new(values, shape)))
    });
    weights.collect()
}
