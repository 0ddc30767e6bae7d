//! `config.json` of a checkpoint that was made dense.

use qoft_core::CONFIG_KEYS;
use qoft_core::kernels::FloatFormat;
use serde_json::Value;

use crate::model_dtype::with_dtype;

/// The configuration without its quantization, and with the dtype of dense weights.
pub(super) fn dense_config(config: &Value, format: FloatFormat) -> Value {
    let mut config = config.clone();
    if let Some(config) = config.as_object_mut() {
        for key in CONFIG_KEYS {
            config.shift_remove(key);
        }
    }
    with_dtype(config, format)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_dtype_is_that_of_the_weights_under_every_key() {
        let dense = |config: Value| dense_config(&config, FloatFormat::F32);
        assert_eq!(
            dense(json!({"dtype": "bfloat16", "torch_dtype": "float16", "n": 1})),
            json!({"dtype": "float32", "torch_dtype": "float32", "n": 1})
        );
        assert_eq!(
            dense(json!({"torch_dtype": "float16"})),
            json!({"torch_dtype": "float32"})
        );
        let parts = json!({
            "text_config": {"dtype": "bfloat16", "layers": [1]},
            "quantization_config": {"bits": 4},
        });
        assert_eq!(
            dense(parts),
            json!({"text_config": {"dtype": "float32", "layers": [1]}, "dtype": "float32"})
        );
        assert_eq!(
            dense_config(&json!({}), FloatFormat::Bf16),
            json!({"dtype": "bfloat16"})
        );
    }
}
