//! `gemma2`: norms around the sublayers, bounded scores and logits, a window in every other layer.

use serde_json::{Value, json};

use super::{Gemma, every, hidden_activation};
use crate::config::ModelNames;
use crate::decoder::{HeadNorm, NormPlacement, RopeDefaults};
use crate::registry::ArchitectureRegistration;

static GEMMA2: Gemma = Gemma {
    model_types: &["gemma2"],
    names: ModelNames::USUAL,
    part: None,
    defaults,
    activation: hidden_activation,
    norms: NormPlacement::Around,
    head_norm: HeadNorm::Without,
    caps_scores: true,
    ropes: [RopeDefaults::USUAL; 2],
    sliding: |_| Ok(every(2)),
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&GEMMA2);

crate::register_architecture!(REGISTRATION);

fn defaults() -> Value {
    json!({
        "vocab_size": 256_000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    })
}
