//! What a checkpoint says of its quantization.

use qoft_scheme::{Error, LayerSource, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How messages name the configuration: it is part of `config.json` or a file of its own.
const NAME: &str = "quantization_config";

/// Widths of codes that can be read.
pub const SUPPORTED_BITS: [usize; 4] = [2, 3, 4, 8];

/// The keys of the configuration that matter to a reader.
#[derive(Debug, Clone, PartialEq)]
pub struct GptqConfig {
    /// Width of a code: 2, 3, 4 or 8.
    pub bits: Option<usize>,
    /// Input channels in a group; [`usize::MAX`] if all are in one.
    pub group_size: Option<usize>,
    /// Whether groups follow the activation order, so that only `g_idx` can tell them.
    pub desc_act: bool,
    /// Whether all zero points are said to be the middle of the range.
    pub sym: bool,
    /// What a stored zero point means.
    pub zero_points: ZeroPoints,
    /// Whether single modules may have another width or group size.
    pub overrides: bool,
}

/// What a stored zero point means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroPoints {
    /// The zero point less one (`gptq`).
    V1,
    /// The zero point (`gptq_v2`).
    V2,
}

impl ZeroPoints {
    /// The name in `checkpoint_format`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "gptq",
            Self::V2 => "gptq_v2",
        }
    }
}

/// The scheme that the configuration names, in lower case.
pub fn method(layer: &LayerSource) -> Option<String> {
    let config = layer.quantization_config()?;
    let named = |key| config.get(key).and_then(Value::as_str);
    let method = named("quant_method").or_else(|| named("method"))?;
    Some(method.to_lowercase())
}

impl GptqConfig {
    /// Reads the configuration; without one everything has its default.
    ///
    /// # Errors
    /// If a value is of the wrong kind, or stands for a layout that is not supported.
    pub fn read(layer: &LayerSource) -> Result<Self> {
        let config = layer.quantization_config().unwrap_or(&Value::Null);
        refuse_repacked(config)?;
        refuse_changed_inputs(config)?;
        let dynamic = config.get("dynamic").and_then(Value::as_object);
        Ok(Self {
            bits: bits(config)?,
            group_size: group_size(config)?,
            desc_act: get(config, "desc_act")?.unwrap_or(false),
            sym: get(config, "sym")?.unwrap_or(true),
            zero_points: zero_points(config)?,
            overrides: dynamic.is_some_and(|rules| !rules.is_empty()),
        })
    }
}

/// A value that is neither absent nor null.
fn get<T: DeserializeOwned>(config: &Value, key: &str) -> Result<Option<T>> {
    match config.get(key).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => T::deserialize(value)
            .map(Some)
            .map_err(|e| Error::config(NAME, key, e)),
    }
}

/// The first of two spellings of a key.
fn either<'a, T: DeserializeOwned>(
    config: &Value,
    keys: [&'a str; 2],
) -> Result<Option<(&'a str, T)>> {
    for key in keys {
        if let Some(value) = get(config, key)? {
            return Ok(Some((key, value)));
        }
    }
    Ok(None)
}

fn bits(config: &Value) -> Result<Option<usize>> {
    let Some((key, bits)) = either::<usize>(config, ["bits", "w_bit"])? else {
        return Ok(None);
    };
    if SUPPORTED_BITS.contains(&bits) {
        Ok(Some(bits))
    } else {
        Err(Error::config(NAME, key, unsupported_bits(bits)))
    }
}

fn group_size(config: &Value) -> Result<Option<usize>> {
    match either::<i64>(config, ["group_size", "q_group_size"])? {
        None => Ok(None),
        Some((_, -1)) => Ok(Some(usize::MAX)),
        Some((key, size)) => match usize::try_from(size) {
            Ok(size) if size > 0 => Ok(Some(size)),
            _ => Err(Error::config(
                NAME,
                key,
                format!("expected -1 or more than 0, found {size}"),
            )),
        },
    }
}

/// Why layers of such a width cannot be read.
pub fn unsupported_bits(bits: usize) -> String {
    let why = match bits {
        5..=7 => " because it is stored in bit planes",
        _ => "",
    };
    format!("a width of {bits} bits is not supported{why}; supported are 2, 3, 4 and 8")
}

fn zero_points(config: &Value) -> Result<ZeroPoints> {
    let Some((key, format)) = either::<String>(config, ["checkpoint_format", "format"])? else {
        return Ok(ZeroPoints::V1);
    };
    match format.to_lowercase().as_str() {
        "gptq" => Ok(ZeroPoints::V1),
        "gptq_v2" => Ok(ZeroPoints::V2),
        _ => Err(unsupported_format(key, &format)),
    }
}

/// Marlin files have names of their own for what they are.
fn refuse_repacked(config: &Value) -> Result<()> {
    if get(config, "is_marlin_format")? == Some(true) {
        return Err(unsupported_format("is_marlin_format", "marlin"));
    }
    let method: Option<String> = get(config, "quant_method")?;
    match method.filter(|method| method.eq_ignore_ascii_case("marlin")) {
        Some(method) => Err(unsupported_format("quant_method", &method)),
        None => Ok(()),
    }
}

fn unsupported_format(key: &str, format: &str) -> Error {
    let why = match format.to_lowercase().as_str() {
        "marlin" | "bitblas" | "exllama" | "exllamav2" => {
            "the weights are arranged for a single GPU kernel"
        }
        "gptq_p" => "the codes are stored in bit planes",
        _ => "the layout is unknown",
    };
    let reason = format!("`{format}` is not supported: {why}; supported are gptq and gptq_v2");
    Error::config(NAME, key, reason)
}

/// GPTQModel can turn or quantize what goes into the layers. The weights alone are then not the
/// layer.
fn refuse_changed_inputs(config: &Value) -> Result<()> {
    let keys = [
        (
            "rotation",
            "some layers transform their input (Hadamard matrix)",
        ),
        ("activation", "layers quantize their input"),
    ];
    for (key, why) in keys {
        let off = |value: &Value| value.is_null() || *value == Value::Bool(false);
        if let Some(value) = config.get(key).filter(|value| !off(value)) {
            let reason = format!("{value} is not supported: {why}");
            return Err(Error::config(NAME, key, reason));
        }
    }
    Ok(())
}
