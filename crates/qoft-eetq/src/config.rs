//! What `quantization_config` says of an EETQ checkpoint: next to nothing.

use qoft_scheme::{Error, LayerSource, Result};
use serde::Deserialize;
use serde_json::Value;

/// How messages name the configuration.
const NAME: &str = "quantization_config";

/// The keys that could stand for another format: `weights` is transformers', the others are those
/// of EETQ itself.
#[derive(Debug, Deserialize)]
struct Config {
    weights: Option<String>,
    bits: Option<u64>,
    zero_point: Option<bool>,
}

/// Whether the checkpoint is said to be EETQ's.
pub fn is_eetq(layer: &LayerSource) -> bool {
    let method = layer
        .quantization_config()
        .and_then(|config| config.get("quant_method"))
        .and_then(Value::as_str);
    method.is_some_and(|method| method.eq_ignore_ascii_case("eetq"))
}

/// Fails if the configuration names something else than symmetric 8-bit weights.
pub fn check(layer: &LayerSource) -> Result<()> {
    let Some(config) = layer.quantization_config().filter(|_| is_eetq(layer)) else {
        return Ok(());
    };
    let config = Config::deserialize(config).map_err(|e| Error::config(NAME, "eetq", e))?;
    let unsupported = |key, value: &dyn std::fmt::Display, expected| {
        let reason = format!("{value} is not supported, only {expected}");
        Err(Error::config(NAME, key, reason))
    };
    match config {
        Config {
            weights: Some(kind),
            ..
        } if kind != "int8" => unsupported("weights", &kind, "int8"),
        Config {
            bits: Some(bits), ..
        } if bits != 8 => unsupported("bits", &bits, "8"),
        Config {
            zero_point: Some(true),
            ..
        } => unsupported("zero_point", &true, "false"),
        _ => Ok(()),
    }
}
