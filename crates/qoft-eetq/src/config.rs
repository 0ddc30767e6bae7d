//! What `quantization_config` says of an EETQ checkpoint: next to nothing.

use std::fmt::Display;

use qoft_scheme::{Keys, Result};

/// Whether the checkpoint is said to be EETQ's.
pub fn is_eetq(keys: &Keys) -> bool {
    keys.method().as_deref() == Some("eetq")
}

/// Fails if the configuration names something else than symmetric 8-bit weights: `weights` is
/// transformers' key, the others are those of EETQ itself.
pub fn check(keys: &Keys) -> Result<()> {
    match is_eetq(keys) {
        true => check_settings(keys),
        false => Ok(()),
    }
}

/// As [`check`], for a configuration that is of this scheme.
pub fn check_settings(keys: &Keys) -> Result<()> {
    let unsupported = |key, value: &dyn Display, expected| {
        let reason = format!("{value} is not supported, only {expected}");
        Err(keys.error(key, reason))
    };
    if let Some(kind) = keys.get::<String>("weights")?.filter(|kind| kind != "int8") {
        return unsupported("weights", &kind, "int8");
    }
    if let Some(bits) = keys.get::<u64>("bits")?.filter(|bits| *bits != 8) {
        return unsupported("bits", &bits, "8");
    }
    match keys.flag("zero_point", false)? {
        true => unsupported("zero_point", &true, "false"),
        false => Ok(()),
    }
}
