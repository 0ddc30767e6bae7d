//! What a checkpoint says of its quantization.

use qoft_scheme::{Error, LayerSource, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How messages name the configuration: it is part of `config.json` or a file of its own.
const NAME: &str = "quantization_config";

/// The keys of the configuration that matter to a reader.
#[derive(Debug, Clone, PartialEq)]
pub struct AwqConfig {
    /// Input channels in a group; [`usize::MAX`] if all are in one.
    pub group_size: Option<usize>,
    /// How the codes are arranged, unless the configuration is silent.
    pub layout: Option<Layout>,
    /// Whether single modules may have another group size.
    pub overrides: bool,
}

/// How the codes are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Packed along the outputs, interleaved.
    Gemm,
    /// Packed along the input channels, in their order.
    Gemv,
}

/// The scheme that the configuration names, in lower case.
pub fn method(layer: &LayerSource) -> Option<String> {
    let config = layer.quantization_config()?;
    let named = |key| config.get(key).and_then(Value::as_str);
    let method = named("quant_method").or_else(|| named("method"))?;
    Some(method.to_lowercase())
}

impl AwqConfig {
    /// Reads the configuration; without one everything has its default.
    ///
    /// # Errors
    /// If a value is of the wrong kind, or stands for a layout that is not supported.
    pub fn read(layer: &LayerSource) -> Result<Self> {
        let config = layer.quantization_config().unwrap_or(&Value::Null);
        match first::<u64>(config, &["bits", "w_bit"])? {
            None | Some((_, 4)) => {}
            Some((key, bits)) => {
                let reason = format!("a width of {bits} bits is not supported; supported is 4");
                return Err(Error::config(NAME, key, reason));
            }
        }
        if let Some((key, backend)) = first::<String>(config, &["backend"])?
            && backend.eq_ignore_ascii_case("llm-awq")
        {
            return Err(unsupported(key, &backend));
        }
        let dynamic = config.get("dynamic").and_then(Value::as_object);
        Ok(Self {
            group_size: group_size(config)?,
            layout: layout(config)?,
            overrides: dynamic.is_some_and(|rules| !rules.is_empty()),
        })
    }
}

/// The first of some keys that is neither absent nor null.
fn first<'a, T: DeserializeOwned>(
    config: &Value,
    keys: &[&'a str],
) -> Result<Option<(&'a str, T)>> {
    let mut found = keys.iter().filter_map(|&key| {
        let value = config.get(key).filter(|value| !value.is_null())?;
        Some((key, value))
    });
    let Some((key, value)) = found.next() else {
        return Ok(None);
    };
    match T::deserialize(value) {
        Ok(value) => Ok(Some((key, value))),
        Err(e) => Err(Error::config(NAME, key, e)),
    }
}

fn group_size(config: &Value) -> Result<Option<usize>> {
    match first::<i64>(config, &["group_size", "q_group_size"])? {
        None => Ok(None),
        Some((_, -1)) => Ok(Some(usize::MAX)),
        Some((key, size)) => match usize::try_from(size) {
            Ok(size) if size > 0 => Ok(Some(size)),
            _ => {
                let reason = format!("expected -1 or more than 0, found {size}");
                Err(Error::config(NAME, key, reason))
            }
        },
    }
}

fn layout(config: &Value) -> Result<Option<Layout>> {
    let keys = ["version", "checkpoint_format", "format"];
    let Some((key, version)) = first::<String>(config, &keys)? else {
        return Ok(None);
    };
    match version.to_lowercase().as_str() {
        "gemm" => Ok(Some(Layout::Gemm)),
        "gemv" => Ok(Some(Layout::Gemv)),
        // Kernels that take the weights as they are in the file.
        "exllama" | "ipex" => Ok(None),
        _ => Err(unsupported(key, &version)),
    }
}

fn unsupported(key: &str, version: &str) -> Error {
    let why = match version.to_lowercase().as_str() {
        "gemv_fast" | "llm-awq" => "four rows are interleaved, and zero points are scaled floats",
        "marlin" => "the weights are arranged for a single GPU kernel",
        _ => "the layout is unknown",
    };
    let reason = format!("`{version}` is not supported: {why}; supported are gemm and gemv");
    Error::config(NAME, key, reason)
}
