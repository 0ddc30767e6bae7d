//! `quantization_config` in `config.json`.

use qoft_core::{Error, LayerSource, Result};

/// Rows and columns of a block where the configuration does not say.
const DEFAULT_BLOCK: [usize; 2] = [128, 128];

/// Whether the checkpoint says that it is of this scheme.
pub fn is_fp8(layer: &LayerSource) -> bool {
    let method = layer
        .quantization_config()
        .and_then(|c| c.get("quant_method"));
    method.is_some_and(|method| method == "fp8")
}

/// Rows and columns that share a scale; `None` if one scale is for the whole matrix.
///
/// # Errors
/// If `weight_block_size` is neither null nor two positive numbers.
pub fn block_size(layer: &LayerSource) -> Result<Option<[usize; 2]>> {
    const KEY: &str = "weight_block_size";
    let Some(value) = layer.quantization_config().and_then(|c| c.get(KEY)) else {
        return Ok(Some(DEFAULT_BLOCK));
    };
    if value.is_null() {
        return Ok(None);
    }
    let sizes = value.as_array().into_iter().flatten();
    let sizes = sizes.map(|size| size.as_u64().and_then(|size| usize::try_from(size).ok()));
    match sizes.collect::<Option<Vec<_>>>().as_deref() {
        Some(&[rows, cols]) if rows > 0 && cols > 0 => Ok(Some([rows, cols])),
        _ => Err(Error::config(
            "quantization_config",
            KEY,
            format!("expected null or two positive numbers, found {value}"),
        )),
    }
}
