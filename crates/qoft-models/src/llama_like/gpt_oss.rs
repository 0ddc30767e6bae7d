//! `gpt_oss`: sinks of attention, a window in every other layer, and mixtures of experts whose gates and what
//! they let through alternate.

use qoft_core::Result;
use qoft_core::kernels::ops::ClampedSwiglu;
use serde_json::{Value, json};

use super::{Biases, LlamaLike, mixtures, windows};
use crate::architecture::Architecture;
use crate::decoder::{ExpertInput, MixtureConfig, RopeDefaults, RouterName};
use crate::json::Object;
use crate::registry::ArchitectureRegistration;
use crate::spec::ModelSpec;

static LIKE_LLAMA: LlamaLike = LlamaLike {
    eps: 1e-5,
    head_dim: Some(64),
    rope: RopeDefaults::USUAL.with_theta(150_000.0),
    sinks: true,
    biases: |json| {
        let attention = json.get("attention_bias")?.unwrap_or(true);
        Ok(Biases {
            qkv: attention,
            output: attention,
            mlp: false,
        })
    },
    layers: |json, layers| windows::in_all_but_every(json, 2, 128, layers),
    feed_forward: |json, layers, dense| {
        let defaults = mixtures::Defaults {
            experts: 128,
            top_k: 4,
        };
        let router = mixtures::router(json, layers, defaults, true)?;
        let router = router.ok_or_else(|| json.error("num_local_experts", "must not be 0"))?;
        let alpha = json.get("swiglu_alpha")?.unwrap_or(1.702);
        let limit = json.positive("swiglu_limit")?.unwrap_or(7.0);
        let mut mixture = MixtureConfig::new([dense.inner, dense.hidden], router);
        mixture.router_name = RouterName::Router;
        mixture.router_bias = true;
        mixture.experts.together = true;
        mixture.experts.input = ExpertInput::Alternating(ClampedSwiglu::new(alpha, limit as f32));
        mixture.experts.bias = true;
        Ok(vec![mixture.into(); layers])
    },
    positions: 131_072,
    ..LlamaLike::new(&["gpt_oss"])
};

/// [`LIKE_LLAMA`] with what transformers' configuration class has for keys that a file leaves out.
struct GptOss;

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&GptOss);

crate::register_architecture!(REGISTRATION);

impl Architecture for GptOss {
    fn name(&self) -> &'static str {
        LIKE_LLAMA.name()
    }

    fn model_types(&self) -> &'static [&'static str] {
        LIKE_LLAMA.model_types
    }

    fn describe(&self, json: Object) -> Result<ModelSpec> {
        let mut filled = json.over(json!({"num_key_value_heads": 8}));
        let has_rope = json.get::<Value>("rope_parameters")?.is_some();
        if !has_rope && json.object("rope_scaling", "rope_scaling.")?.is_none() {
            filled["rope_scaling"] = json!({
                "rope_type": "yarn",
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": false,
                "original_max_position_embeddings": 4096,
            });
        }
        LIKE_LLAMA.describe(json.with_value(&filled))
    }
}
