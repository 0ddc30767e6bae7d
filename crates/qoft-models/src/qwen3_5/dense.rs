//! `qwen3_5_text`, and the text part of `qwen3_5`.

use serde_json::{Value, json};

use super::{PART, Qwen35, TEXT, TEXT_CONFIG, over_common};
use crate::decoder::MlpConfig;
use crate::registry::ArchitectureRegistration;

static QWEN3_5_TEXT: Qwen35 = Qwen35 {
    model_types: &["qwen3_5_text"],
    names: TEXT,
    part: None,
    defaults,
    feed_forward: |json, model, activation| {
        let inner = json.require_size("intermediate_size")?;
        let mlp = MlpConfig {
            activation,
            ..MlpConfig::new([inner, model.hidden_size])
        };
        Ok(mlp.into())
    },
};

static QWEN3_5: Qwen35 = Qwen35 {
    model_types: &["qwen3_5"],
    names: PART,
    part: Some(TEXT_CONFIG),
    ..QWEN3_5_TEXT
};

static ALONE: ArchitectureRegistration = ArchitectureRegistration::new(&QWEN3_5_TEXT);
static WHOLE: ArchitectureRegistration = ArchitectureRegistration::new(&QWEN3_5);

crate::register_architecture!(ALONE);
crate::register_architecture!(WHOLE);

fn defaults() -> Value {
    over_common(json!({
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 32,
        "num_key_value_heads": 4,
    }))
}
