//! What `quantization_config` says of an MXFP4 checkpoint.

use qoft_scheme::{Keys, Result};

/// `quant_method` of such checkpoints.
pub const METHOD: &str = "mxfp4";
/// The key that lists what stays dense.
pub const SKIPS: &str = "modules_to_not_convert";

/// Whether a configuration may be this scheme's: the tensors' names tell where it names no method.
pub fn may_be_mxfp4(keys: &Keys) -> bool {
    !keys.is_of_another(&[METHOD])
}

/// Modules that stay dense.
///
/// # Errors
/// If it is no list of names.
pub fn skips(keys: &Keys) -> Result<Option<Vec<String>>> {
    keys.get(SKIPS)
}
