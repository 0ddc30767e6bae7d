//! `quantization_config` in `config.json`.

use qoft_core::{Keys, Result};

/// What a stored scale stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Weights are codes divided by it: transformers' `BitLinear`.
    Divides,
    /// Weights are codes times it: transformers' `AutoBitLinear`.
    Multiplies,
}

/// Whether the checkpoint says that it is of this scheme.
pub fn is_bitnet(keys: &Keys) -> bool {
    keys.method().as_deref() == Some("bitnet")
}

/// Refuses weights that are not quantized before each forward does that: nothing tells such layers
/// from dense ones.
///
/// # Errors
/// If `quantization_mode` is not `offline`.
pub fn refuse_online(keys: &Keys) -> Result<()> {
    const KEY: &str = "quantization_mode";
    match keys.get::<String>(KEY)?.as_deref() {
        None | Some("offline") => Ok(()),
        Some(mode) => {
            let reason = format!(
                "`{mode}` is not supported: the file has weights that each forward quantizes anew; \
                 pack them, and write `offline`"
            );
            Err(keys.error(KEY, reason))
        }
    }
}

/// What stored scales stand for.
///
/// # Errors
/// If `linear_class` is unknown, or layers normalize their inputs.
pub fn scale(keys: &Keys) -> Result<Scale> {
    const NORM: &str = "use_rms_norm";
    if keys.flag(NORM, false)? {
        let reason = "layers that normalize their inputs are not supported";
        return Err(keys.error(NORM, reason));
    }
    let classes = [
        ("bitlinear", Scale::Divides),
        ("autobitlinear", Scale::Multiplies),
    ];
    let class = keys.choice("linear_class", &classes)?;
    Ok(class.unwrap_or(Scale::Divides))
}
