//! The files of an adapter folder, and what is read from them.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use qoft_core::{Error, MappedFile, Result, float_format, read_bytes};

/// The file of the configuration.
pub const CONFIG: &str = "adapter_config.json";
/// The file of the parameters.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// What stands before a module path in the name of a parameter.
pub const PREFIX: &str = "base_model.model.";

/// Shapes and values by name, without [`PREFIX`].
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads the tensors of an adapter file.
///
/// # Errors
/// If the file is damaged, or holds something else than finite floats of a model's modules.
pub fn read_tensors(path: &Path) -> Result<Tensors> {
    let fail = |reason: String| Error::Adapter {
        path: path.to_path_buf(),
        reason,
    };
    let bytes = read_bytes(path)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| fail(format!("not a valid safetensors file: {e}")))?;
    let mut tensors = Tensors::new();
    for (name, tensor) in file.iter() {
        let key = name
            .strip_prefix(PREFIX)
            .ok_or_else(|| fail(format!("`{name}` does not start with `{PREFIX}`")))?;
        let data = to_f32(&tensor)
            .ok_or_else(|| fail(format!("`{name}`: expected finite F32, F16 or BF16 values")))?;
        tensors.insert(key.to_owned(), (tensor.shape().to_vec(), data));
    }
    Ok(tensors)
}

/// The shapes of the tensors in an adapter's folder by name, without [`PREFIX`]; their values are not read.
///
/// # Errors
/// If there is no such file, or it is damaged.
pub fn saved_shapes(folder: &Path) -> Result<BTreeMap<String, Vec<usize>>> {
    let path = folder.join(WEIGHTS);
    let mapped = MappedFile::open(&path)?;
    let file = SafeTensors::deserialize(mapped.bytes()).map_err(|e| Error::Adapter {
        path,
        reason: format!("not a valid safetensors file: {e}"),
    })?;
    let shape = |(name, tensor): (&str, TensorView)| {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        (name.to_owned(), tensor.shape().to_vec())
    };
    Ok(file.iter().map(shape).collect())
}

fn to_f32(tensor: &TensorView) -> Option<Vec<f32>> {
    let format = float_format(tensor.dtype())?;
    let mut out = vec![0.0; tensor.shape().iter().product()];
    format.decode(tensor.data(), &mut out);
    out.iter().all(|v| v.is_finite()).then_some(out)
}
