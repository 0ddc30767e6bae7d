//! `qwen3_5_moe_text`, and the text part of `qwen3_5_moe`: mixtures of experts in all layers, with one
//! that all tokens meet.

use serde_json::{Value, json};

use super::{PART, Qwen35, TEXT, TEXT_CONFIG, over_common};
use crate::decoder::{ExpertInput, MixtureConfig, MlpConfig, SharedConfig};
use crate::llama_like::mixtures;
use crate::registry::ArchitectureRegistration;

static QWEN3_5_MOE_TEXT: Qwen35 = Qwen35 {
    model_types: &["qwen3_5_moe_text"],
    names: TEXT,
    part: None,
    defaults,
    feed_forward: |json, model, activation| {
        let defaults = mixtures::Defaults {
            experts: 256,
            top_k: 8,
        };
        let router = mixtures::router(json, model.num_hidden_layers, defaults, true)?;
        let router = router.ok_or_else(|| json.error("num_experts", "must not be 0"))?;
        let hidden = model.hidden_size;
        let inner = json.require_size("moe_intermediate_size")?;
        let shared = json.require_size("shared_expert_intermediate_size")?;
        let shared = MlpConfig {
            activation,
            ..MlpConfig::new([shared, hidden])
        };
        let mut mixture = MixtureConfig::new([inner, hidden], router);
        mixture.experts.input = ExpertInput::Gated(activation);
        mixture.shared = Some(SharedConfig::Gated(shared));
        Ok(mixture.into())
    },
};

static QWEN3_5_MOE: Qwen35 = Qwen35 {
    model_types: &["qwen3_5_moe"],
    names: PART,
    part: Some(TEXT_CONFIG),
    ..QWEN3_5_MOE_TEXT
};

static ALONE: ArchitectureRegistration = ArchitectureRegistration::new(&QWEN3_5_MOE_TEXT);
static WHOLE: ArchitectureRegistration = ArchitectureRegistration::new(&QWEN3_5_MOE);

crate::register_architecture!(ALONE);
crate::register_architecture!(WHOLE);

fn defaults() -> Value {
    over_common(json!({
        "hidden_size": 2048,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    }))
}
