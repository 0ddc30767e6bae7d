//! What bitsandbytes writes down: in `quantization_config`, and as the state of each 4-bit layer.

use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{Dtype, Keys, LayerSource, QuantizedModel, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// Start of the name of the tensor that holds the state; `nf4` or `fp4` follows.
pub const QUANT_STATE: &str = "weight.quant_state.bitsandbytes__";
/// Groups that share a nested absmax where the library quantizes.
pub const NESTED_BLOCKSIZE: usize = 256;
/// The library's threshold for outliers.
const DEFAULT_THRESHOLD: f64 = 6.0;
/// Its key.
pub const THRESHOLD: &str = "llm_int8_threshold";

/// What bitsandbytes records of a quantized weight: JSON text, stored as a tensor of bytes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct QuantState {
    /// `nf4` or `fp4`.
    pub quant_type: String,
    /// Consecutive weights that share an absmax.
    pub blocksize: usize,
    /// Dtype of the weight that was quantized; dequantization rounds to it.
    pub dtype: BlobDtype,
    /// `[out_features, in_features]`; absent in odd files.
    pub shape: Option<Vec<usize>>,
    /// Groups that share a nested absmax; present with double quantization.
    pub nested_blocksize: Option<usize>,
    /// Added to nested absmax values.
    pub nested_offset: Option<f64>,
}

/// Dtype of the weight that was quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BlobDtype {
    /// `float32`.
    Float32,
    /// `float16`.
    Float16,
    /// `bfloat16`.
    Bfloat16,
}

impl BlobDtype {
    /// The format that dequantization rounds to.
    pub fn format(self) -> FloatFormat {
        match self {
            Self::Float32 => FloatFormat::F32,
            Self::Float16 => FloatFormat::F16,
            Self::Bfloat16 => FloatFormat::Bf16,
        }
    }
}

impl QuantState {
    /// Reads the state of a layer. Returns the name of its tensor, too.
    ///
    /// # Errors
    /// If it is missing, no JSON, or contradicts the name of its tensor.
    pub fn read(layer: &LayerSource) -> Result<(Self, String)> {
        let suffix = layer
            .suffixes()
            .find(|s| s.starts_with(QUANT_STATE))
            .ok_or_else(|| layer.error(format!("tensor `{QUANT_STATE}…` is missing")))?;
        let tensor = layer.tensor(suffix)?;
        tensor.expect_dtype(&[Dtype::U8])?;
        let state: Self = serde_json::from_slice(tensor.bytes())
            .map_err(|e| tensor.error("a quantization state in JSON", e))?;
        let kind = &suffix[QUANT_STATE.len()..];
        if !matches!(kind, "nf4" | "fp4") || state.quant_type != kind {
            let found = format!("`{kind}` in the name, `{}` inside", state.quant_type);
            return Err(tensor.error("nf4 or fp4", found));
        }
        if state.blocksize == 0 {
            return Err(tensor.error("a positive blocksize", 0));
        }
        Ok((state, suffix.to_owned()))
    }

    /// Name of the number format.
    pub fn format(&self) -> &'static str {
        if self.quant_type == "nf4" {
            "nf4"
        } else {
            "fp4"
        }
    }
}

/// The number formats of 4 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantType {
    /// Quantiles of the normal distribution.
    Nf4,
    /// Floats with two bits of exponent and one of fraction.
    Fp4,
}

impl QuantType {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nf4 => "nf4",
            Self::Fp4 => "fp4",
        }
    }
}

/// How dense weights become 4-bit ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings4Bit {
    /// `bnb_4bit_quant_type`: `fp4` unless given, or `nf4`.
    pub quant_type: QuantType,
    /// `bnb_4bit_use_double_quant`: the absmax values are quantized themselves.
    pub double_quant: bool,
    /// `bnb_4bit_quant_storage`: the dtype that the packed codes are stored under; `uint8` unless
    /// given.
    pub storage: Dtype,
    /// `blocksize`: 64 unless given, a power of two from 32 to 4096. transformers has no key for it.
    pub blocksize: usize,
}

impl Settings4Bit {
    /// Reads the settings.
    ///
    /// # Errors
    /// If a value is one that the library does not have.
    pub fn read(keys: &Keys) -> Result<Self> {
        let types = [("fp4", QuantType::Fp4), ("nf4", QuantType::Nf4)];
        let quant_type = keys.choice("bnb_4bit_quant_type", &types)?;
        let storage = keys.choice("bnb_4bit_quant_storage", &STORAGE)?;
        let blocksize = keys.get::<usize>("blocksize")?.unwrap_or(64);
        if !blocksize.is_power_of_two() || !(32..=4096).contains(&blocksize) {
            let reason = format!("expected a power of two from 32 to 4096, found {blocksize}");
            return Err(keys.error("blocksize", reason));
        }
        Ok(Self {
            quant_type: quant_type.unwrap_or(QuantType::Fp4),
            double_quant: keys.flag("bnb_4bit_use_double_quant", false)?,
            storage: storage.unwrap_or(Dtype::U8),
            blocksize,
        })
    }
}

/// Dtypes that packed codes can be stored under, by torch's names.
const STORAGE: [(&str, Dtype); 5] = [
    ("uint8", Dtype::U8),
    ("int8", Dtype::I8),
    ("float16", Dtype::F16),
    ("bfloat16", Dtype::BF16),
    ("float32", Dtype::F32),
];

/// Dtypes that the library computes in, by torch's names.
const COMPUTE: [(&str, ()); 3] = [("float32", ()), ("float16", ()), ("bfloat16", ())];

/// What a `quantization_config` has for both formats.
#[derive(Debug, Clone)]
pub struct CommonSettings {
    /// `llm_int8_skip_modules`.
    pub skips: Option<Vec<String>>,
    /// The configuration, with keys that only readers use.
    keys: Keys,
}

impl CommonSettings {
    /// Reads the settings; `None` if they are of another scheme, or ask for the other format alone.
    ///
    /// # Errors
    /// If a value is of another type, or a dtype that nobody computes in.
    pub fn read(keys: &Keys, four_bit: bool) -> Result<Option<Self>> {
        if keys.is_of_another(&["bitsandbytes"]) {
            return Ok(None);
        }
        let (four, eight) = (keys.flag(LOAD[0], false)?, keys.flag(LOAD[1], false)?);
        if four && eight {
            return Err(keys.error(LOAD[0], "true, and `load_in_8bit` as well"));
        }
        // It changes nothing here, but what is written is read elsewhere.
        keys.choice("bnb_4bit_compute_dtype", &COMPUTE)?;
        let other = if four_bit { eight } else { four };
        Ok((!other).then_some(Self {
            skips: keys.get("llm_int8_skip_modules")?,
            keys: keys.clone(),
        }))
    }

    /// The `quantization_config` that transformers writes.
    pub fn written(&self, four_bit: Option<&Settings4Bit>, model: &QuantizedModel) -> Value {
        let defaults = Settings4Bit {
            quant_type: QuantType::Fp4,
            double_quant: false,
            storage: Dtype::U8,
            blocksize: 64,
        };
        let settings = four_bit.unwrap_or(&defaults);
        let storage = STORAGE.iter().find(|(_, dtype)| *dtype == settings.storage);
        let given = |key: &str, default: Value| self.keys.value(key).cloned().unwrap_or(default);
        let four_bit = four_bit.is_some();
        let mut config = json!({
            "quant_method": "bitsandbytes",
            "_load_in_4bit": four_bit,
            "_load_in_8bit": !four_bit,
            LOAD[0]: four_bit,
            LOAD[1]: !four_bit,
            "bnb_4bit_compute_dtype": given("bnb_4bit_compute_dtype", json!("float32")),
            "bnb_4bit_quant_storage": storage.map(|(name, _)| name),
            "bnb_4bit_quant_type": settings.quant_type.name(),
            "bnb_4bit_use_double_quant": settings.double_quant,
            "llm_int8_enable_fp32_cpu_offload": false,
            "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": model.skips,
            THRESHOLD: given(THRESHOLD, json!(DEFAULT_THRESHOLD)),
        });
        if settings.blocksize != defaults.blocksize {
            config["blocksize"] = json!(settings.blocksize);
        }
        config
    }
}

/// The flags that choose the format.
pub const LOAD: [&str; 2] = ["load_in_4bit", "load_in_8bit"];

/// Activations of at least this magnitude are outliers; 0: none is.
///
/// # Errors
/// If it is no number from 0 on.
pub fn threshold(keys: &Keys) -> Result<f32> {
    let value = keys.get::<f64>(THRESHOLD)?;
    let value = value.unwrap_or(DEFAULT_THRESHOLD);
    if value >= 0.0 && value.is_finite() {
        Ok(value as f32)
    } else {
        Err(keys.error(
            THRESHOLD,
            format!("expected a number from 0 on, found {value}"),
        ))
    }
}
