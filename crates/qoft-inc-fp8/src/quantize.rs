//! Dense weights, as the library quantizes them where the scales of inputs are found while a model runs.

use qoft_scheme::kernels::{FloatFormat, Floats, Fp8Format, Matrix, transpose};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, Keys, NewTensor, QuantizedModel, Quantizer, Result, float_dtype,
};
use serde_json::{Value, json};

use crate::cards::SplitAxis;
use crate::config::{self, WeightMethod};
use crate::layout::Mode;
use crate::numbers::Numbers;
use crate::requantize::{Bytes, Part, Rule};
use crate::split::Split;

/// Keys of the settings.
pub const SETTINGS: [&str; 3] = ["fp8_config", "scale_method", "hp_dtype"];
/// Scales of rows for inputs, and of output features for weights.
const DEFAULT_METHOD: &str = "maxabs_pcs_pow2";
/// Names of the library for dtypes.
const DTYPES: [(&str, FloatFormat); 3] = [
    ("bf16", FloatFormat::Bf16),
    ("fp16", FloatFormat::F16),
    ("fp32", FloatFormat::F32),
];
/// Names for the numbers of weights and inputs, and their dtype in files.
const NUMBERS: [(&str, (Fp8Format, Dtype)); 2] = [
    ("E4M3", (Fp8Format::E4m3, Dtype::F8_E4M3)),
    ("E5M2", (Fp8Format::E5m2, Dtype::F8_E5M2)),
];

/// The settings of all layers.
pub struct ToInc {
    /// Name of the format.
    name: &'static str,
    numbers: Numbers,
    dtype: Dtype,
    /// `scale_method`.
    method: String,
    weight_method: WeightMethod,
    /// Weights have a scale for each output feature.
    per_channel: bool,
    /// `hp_dtype`; that of the model if there is none.
    high: Option<FloatFormat>,
    /// The names of `blocklist`.
    skips: Option<Vec<String>>,
}

impl ToInc {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If a setting is impossible, or asks for scales that are measured.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.method().is_some() {
            return Ok(None);
        }
        if config::states(keys, "use_qdq", "true") {
            let reason = "the QDQ mode has fixed scales of inputs, which need calibration data";
            return Err(keys.error("use_qdq", reason));
        }
        if config::states(keys, "dynamic_quantization", "false") {
            let reason = "fixed scales of inputs need calibration data; choose dynamic ones";
            return Err(keys.error("dynamic_quantization", reason));
        }
        let method: Option<String> = keys.get("scale_method")?;
        let default = Keys::new("default settings", json!({"scale_method": DEFAULT_METHOD}));
        let stated = if method.is_some() { keys } else { &default };
        config::input_method(stated)?;
        let method = method.unwrap_or_else(|| DEFAULT_METHOD.to_owned());
        let method = method.to_lowercase();
        let numbers = keys.choice("fp8_config", &NUMBERS)?;
        let (format, dtype) = numbers.unwrap_or(NUMBERS[0].1);
        let named = NUMBERS.iter().find(|(_, known)| *known == (format, dtype));
        let block = keys.object("blocklist");
        let skips: Option<Vec<String>> = match &block {
            None => None,
            Some(block) => block.get("names")?,
        };
        Ok(Some(Self {
            name: named.map_or("E4M3", |(name, _)| name),
            numbers: Numbers::of(format, false),
            dtype,
            weight_method: config::weight_method(stated)?,
            per_channel: method.contains("weights_pcs") || method == DEFAULT_METHOD,
            method,
            high: keys.choice("hp_dtype", &DTYPES)?,
            skips: skips.filter(|names| !names.is_empty()),
        }))
    }
}

impl Quantizer for ToInc {
    /// The keys that say how a file is read; the library has defaults for the others.
    fn config(&self, model: &QuantizedModel) -> Value {
        let high = self.high.unwrap_or(model.format);
        let high = DTYPES.iter().find(|(_, format)| *format == high);
        json!({
            "fp8_config": self.name,
            "hp_dtype": high.map_or("bf16", |(name, _)| *name),
            "mode": "LOAD",
            "dynamic_quantization": true,
            "scale_method": self.method,
            "scale_format": "const",
            "use_qdq": "False",
            "fake_quant": "False",
            "observer": "maxabs",
            "allowlist": {"names": [], "types": ["Linear"]},
            "blocklist": {"names": model.skips.unwrap_or(model.dense), "types": []},
        })
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let high = self.high.unwrap_or(dense.format);
        let mut weight: Matrix = dense.weight.clone();
        weight.round(high);
        let [n, k] = weight.shape;
        let rule = Rule {
            method: self.weight_method,
            numbers: self.numbers,
            high,
            gaudi2: false,
        };
        let scales = Floats::from_f32(&rule.scales(&weight, !self.per_channel), high)?;
        let shape = if self.per_channel { vec![n] } else { vec![] };
        let grid = Bytes {
            split: Split {
                part: [n, k],
                count: 1,
                axis: SplitAxis::Out,
            },
            parts: vec![Part::new(&rule, scales)],
            numbers: self.numbers,
            rounding: None,
        };
        let codes = transpose(&search.codes(&weight, &grid), 1, [n, k]);
        let scales = grid.parts[0].bytes();
        let name = Mode::Gaudi.weight_scale();
        Ok(vec![
            dense.new_tensor("weight", self.dtype, &[k, n], codes),
            dense.new_tensor(name, float_dtype(high), &shape, scales),
        ])
    }
}
