//! `gemma`: the first generation, a llama with a unit offset.

use qoft_core::Result;
use qoft_core::kernels::ops::Activation;
use serde_json::{Value, json};

use super::Gemma;
use crate::activation::activation;
use crate::config::ModelNames;
use crate::decoder::{HeadNorm, NormPlacement, RopeDefaults};
use crate::json::Object;
use crate::registry::ArchitectureRegistration;

static GEMMA: Gemma = Gemma {
    model_types: &["gemma"],
    names: ModelNames::USUAL,
    part: None,
    defaults,
    activation: hidden_act,
    norms: NormPlacement::Before,
    head_norm: HeadNorm::Without,
    caps_scores: false,
    ropes: [RopeDefaults::USUAL; 2],
    sliding: |_| Ok(Box::new(|_| false)),
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&GEMMA);

crate::register_architecture!(REGISTRATION);

fn defaults() -> Value {
    json!({
        "vocab_size": 256_000,
        "hidden_size": 3072,
        "intermediate_size": 24_576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "pad_token_id": 0,
    })
}

/// In these files "gelu" means the approximation, as in transformers.
fn hidden_act(json: Object) -> Result<Activation> {
    let key = "hidden_act";
    let found = activation(json, key)?.ok_or_else(|| json.error(key, "is missing"))?;
    Ok(match found {
        Activation::Gelu => Activation::GeluTanh,
        other => other,
    })
}
