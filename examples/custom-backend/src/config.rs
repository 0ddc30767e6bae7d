//! `quantization_config` in `config.json`.

use qoft_core::{Keys, Result};

/// Rows and columns of a block where the configuration does not say.
const DEFAULT_BLOCK: [usize; 2] = [128, 128];

/// Whether the checkpoint says that it is of this scheme.
pub fn is_fp8(keys: &Keys) -> bool {
    keys.method().as_deref() == Some("fp8")
}

/// Rows and columns that share a scale; `None` if one scale is for the whole matrix.
///
/// # Errors
/// If `weight_block_size` is neither null nor two positive numbers.
pub fn block_size(keys: &Keys) -> Result<Option<[usize; 2]>> {
    const KEY: &str = "weight_block_size";
    // Null is not the default here, as it is elsewhere.
    let Some(value) = keys.all().and_then(|all| all.get(KEY)) else {
        return Ok(Some(DEFAULT_BLOCK));
    };
    if value.is_null() {
        return Ok(None);
    }
    let sizes = value.as_array().into_iter().flatten();
    let sizes = sizes.map(|size| size.as_u64().and_then(|size| usize::try_from(size).ok()));
    match sizes.collect::<Option<Vec<_>>>().as_deref() {
        Some(&[rows, cols]) if rows > 0 && cols > 0 => Ok(Some([rows, cols])),
        _ => {
            let reason = format!("expected null or two positive numbers, found {value}");
            Err(keys.error(KEY, reason))
        }
    }
}
