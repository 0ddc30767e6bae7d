//! `gemma3_text`, and the text part of `gemma3`: norms on queries and keys, rotary positions by the kind
//! of layer.

use serde_json::{Value, json};

use super::{Gemma, every, hidden_activation};
use crate::config::ModelNames;
use crate::decoder::{HeadNorm, NormPlacement, RopeDefaults};
use crate::registry::ArchitectureRegistration;

/// Five layers with a window, then one that sees everything. As in transformers, no file bounds the
/// scores.
static GEMMA3_TEXT: Gemma = Gemma {
    model_types: &["gemma3_text"],
    names: ModelNames::USUAL,
    part: None,
    defaults,
    activation: hidden_activation,
    norms: NormPlacement::Around,
    head_norm: HeadNorm::Each,
    caps_scores: false,
    ropes: [
        RopeDefaults {
            layer_type: Some("full_attention"),
            ..RopeDefaults::USUAL.with_theta(1e6)
        },
        RopeDefaults {
            layer_type: Some("sliding_attention"),
            theta_key: Some("rope_local_base_freq"),
            scaled: false,
            ..RopeDefaults::USUAL
        },
    ],
    sliding: |json| Ok(every(json.size("sliding_window_pattern")?.unwrap_or(6))),
};

/// Pictures are not read: the text part is a model of its own.
static GEMMA3: Gemma = Gemma {
    model_types: &["gemma3"],
    names: ModelNames::TEXT_PART,
    part: Some(("text_config", "text_config.")),
    ..GEMMA3_TEXT
};

static TEXT: ArchitectureRegistration = ArchitectureRegistration::new(&GEMMA3_TEXT);
static PART: ArchitectureRegistration = ArchitectureRegistration::new(&GEMMA3);

crate::register_architecture!(TEXT);
crate::register_architecture!(PART);

fn defaults() -> Value {
    json!({
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    })
}
