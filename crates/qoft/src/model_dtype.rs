//! The dtype that a `config.json` names.

use qoft_core::kernels::FloatFormat;
use serde_json::{Map, Value};

/// The keys under which a configuration names the dtype of its weights: transformers reads the first
/// one, and the other one, which older versions wrote, where the first is not there.
const KEYS: [&str; 2] = ["dtype", "torch_dtype"];

/// The dtype, if one is named that weights can have here.
pub(crate) fn stated(config: &Value) -> Option<FloatFormat> {
    let named = KEYS.iter().find_map(|key| config.get(key)?.as_str())?;
    let named = named.trim_start_matches("torch.");
    FloatFormat::ALL
        .into_iter()
        .find(|format| format.torch_name() == named)
}

/// The configuration with another dtype, wherever it names one, also for a model's parts.
pub(crate) fn with_dtype(mut config: Value, format: FloatFormat) -> Value {
    let name = format.torch_name();
    if let Some(config) = config.as_object_mut() {
        set(config, name);
        if !KEYS.iter().any(|key| config.contains_key(*key)) {
            config.insert(KEYS[0].into(), name.into());
        }
    }
    config
}

fn set(config: &mut Map<String, Value>, dtype: &str) {
    for (key, value) in config {
        if KEYS.contains(&key.as_str()) {
            *value = dtype.into();
        } else if key != "quantization_config"
            && let Some(part) = value.as_object_mut()
        {
            set(part, dtype);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_dtype_is_set_under_every_key() {
        let set = |config: Value| with_dtype(config, FloatFormat::F32);
        assert_eq!(
            set(json!({"dtype": "bfloat16", "torch_dtype": "float16", "n": 1})),
            json!({"dtype": "float32", "torch_dtype": "float32", "n": 1})
        );
        assert_eq!(
            set(json!({"torch_dtype": "float16"})),
            json!({"torch_dtype": "float32"})
        );
        assert_eq!(
            set(json!({"text_config": {"dtype": "bfloat16", "layers": [1]}})),
            json!({"text_config": {"dtype": "float32", "layers": [1]}, "dtype": "float32"})
        );
        assert_eq!(
            with_dtype(json!({}), FloatFormat::Bf16),
            json!({"dtype": "bfloat16"})
        );
    }

    #[test]
    fn the_newer_key_counts() {
        let config = json!({"torch_dtype": "float32", "dtype": "torch.float16"});
        assert_eq!(stated(&config), Some(FloatFormat::F16));
        assert_eq!(stated(&json!({"dtype": "int8"})), None);
        assert_eq!(stated(&json!({"dtype": null})), None);
    }
}
