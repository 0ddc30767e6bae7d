//! What `quantization_config` says of a checkpoint of Intel Neural Compressor.

use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{Error, Keys, Result};
use serde_json::Value;

/// Whether the checkpoint is said to be of this library. It has no `quant_method`.
pub fn is_inc(keys: &Keys) -> bool {
    let has = |key| keys.all().is_some_and(|all| all.get(key).is_some());
    has("fp8_config") && !has("quant_method")
}

/// What holds for all layers. Each value is only asked for by layers that need it, which then say
/// what is wrong with it.
#[derive(Debug, Clone)]
pub struct IncConfig {
    /// Numbers are those of a Gaudi 2.
    pub gaudi2: bool,
    /// The dtype of everything that is not quantized.
    pub high_precision: Result<FloatFormat>,
    /// The method for inputs without scales in the file; `None` unless the configuration says that
    /// they have none.
    pub dynamic_method: Result<Option<DynamicMethod>>,
    /// The method for weights.
    pub weight_method: Result<WeightMethod>,
}

impl IncConfig {
    /// Reads the configuration.
    pub fn new(keys: &Keys, gaudi2: bool) -> Self {
        Self {
            gaudi2,
            high_precision: high_precision(keys),
            dynamic_method: dynamic_method(keys),
            weight_method: weight_method(keys),
        }
    }
}

fn high_precision(keys: &Keys) -> Result<FloatFormat> {
    let Some(value) = raw(keys, "hp_dtype") else {
        return Ok(FloatFormat::Bf16);
    };
    match lower(value).as_str() {
        "bf16" => Ok(FloatFormat::Bf16),
        "fp16" => Ok(FloatFormat::F16),
        "fp32" => Ok(FloatFormat::F32),
        _ => Err(error(keys, "hp_dtype", value, "bf16, fp16 or fp32")),
    }
}

/// How the scale of an input is found while the model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DynamicMethod {
    /// Each row has a scale of its own; otherwise all rows of a call share one.
    pub per_row: bool,
    /// Scales are powers of two.
    pub power_of_two: bool,
}

fn dynamic_method(keys: &Keys) -> Result<Option<DynamicMethod>> {
    match states(keys, "dynamic_quantization", "true") {
        true => input_method(keys).map(Some),
        false => Ok(None),
    }
}

/// Whether a value is this one. The library writes some of its booleans as strings.
pub fn states(keys: &Keys, key: &str, value: &str) -> bool {
    raw(keys, key).is_some_and(|found| lower(found) == value)
}

/// How inputs are quantized by a method for scales that are found while the model runs.
pub fn input_method(keys: &Keys) -> Result<DynamicMethod> {
    let method = raw(keys, "scale_method").unwrap_or(&Value::Null);
    let (per_row, power_of_two) = match lower(method).as_str() {
        "maxabs_pow2"
        | "maxabs_pow2_opt_weight"
        | "act_maxabs_pow2_weights_pcs_maxabs_pow2"
        | "act_maxabs_pow2_weights_pcs_opt_pow2" => (false, true),
        "maxabs_arbitrary" => (false, false),
        "maxabs_pcs_pow2" | "act_maxabs_pcs_pow2_weight_maxabs_pts_pow2_hw" => (true, true),
        _ => {
            let expected = "maxabs_pow2, maxabs_arbitrary, maxabs_pcs_pow2 or another method that the \
                            library has for dynamic quantization";
            return Err(error(keys, "scale_method", method, expected));
        }
    };
    Ok(DynamicMethod {
        per_row,
        power_of_two,
    })
}

/// How the scales of a weight are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightMethod {
    /// What a scale is rounded to.
    pub rounding: ScaleRounding,
    /// Scales around the one that the largest weight leads to are tried too.
    pub search: bool,
}

/// What the scale of a weight is rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleRounding {
    /// To nothing.
    Arbitrary,
    /// Up to a power of two.
    PowerOfTwo,
    /// Up to one that the device applies without a multiplication.
    Hardware,
    /// It is 1.
    Unit,
    /// It is the device's largest.
    LargestOfHardware,
}

/// The method for weights of a configuration.
pub fn weight_method(keys: &Keys) -> Result<WeightMethod> {
    use ScaleRounding::{Arbitrary, Hardware, LargestOfHardware, PowerOfTwo, Unit};
    let default = Value::from("maxabs_hw");
    let method = raw(keys, "scale_method").unwrap_or(&default);
    let (rounding, search) = match lower(method).as_str() {
        "maxabs_arbitrary" => (Arbitrary, false),
        "maxabs_pow2"
        | "maxabs_pcs_pow2"
        | "act_maxabs_hw_weights_pcs_maxabs_pow2"
        | "act_maxabs_pow2_weights_pcs_maxabs_pow2" => (PowerOfTwo, false),
        "maxabs_pow2_opt_weight"
        | "act_maxabs_hw_weights_pcs_opt_pow2"
        | "act_maxabs_pow2_weights_pcs_opt_pow2" => (PowerOfTwo, true),
        "maxabs_hw" | "act_maxabs_pcs_pow2_weight_maxabs_pts_pow2_hw" => (Hardware, false),
        "maxabs_hw_opt_weight" => (Hardware, true),
        "unit_scale" => (Unit, false),
        "hw_aligned_single_scale" => (LargestOfHardware, false),
        _ => {
            let expected = "the name of a method that the library has for weights";
            return Err(error(keys, "scale_method", method, expected));
        }
    };
    Ok(WeightMethod { rounding, search })
}

/// A value, null too: the library has no default for that.
fn raw<'a>(keys: &'a Keys, key: &str) -> Option<&'a Value> {
    keys.all()?.get(key)
}

/// The text of a string, or the value as JSON, in lower case.
fn lower(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
        .to_lowercase()
}

fn error(keys: &Keys, key: &str, found: &Value, expected: &str) -> Error {
    keys.error(key, format!("expected {expected}, found {found}"))
}
