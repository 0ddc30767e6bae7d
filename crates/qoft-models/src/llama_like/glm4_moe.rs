//! `glm4_moe`: partial rotary positions, perhaps norms on heads; behind the first layers mixtures of experts that
//! are chosen by sigmoids, with some that all tokens meet.

use qoft_core::Result;
use serde_json::json;

use super::{Biases, LlamaLike, mixtures};
use crate::architecture::Architecture;
use crate::decoder::{HeadNorm, MixtureConfig, MlpConfig, RopeDefaults, Scores, SharedConfig};
use crate::json::Object;
use crate::registry::ArchitectureRegistration;
use crate::spec::ModelSpec;

static PLAIN: LlamaLike = LlamaLike {
    eps: 1e-5,
    rope: RopeDefaults::USUAL.with_partial_rotary_factor(0.5),
    biases: |json| {
        Ok(Biases {
            qkv: json.flag("attention_bias")?,
            ..Biases::default()
        })
    },
    feed_forward: |json, layers, dense| {
        let defaults = mixtures::Defaults {
            experts: 128,
            top_k: 8,
        };
        let normalized = json.get("norm_topk_prob")?.unwrap_or(true);
        let router = mixtures::router(json, layers, defaults, normalized)?;
        let mut router = router.ok_or_else(|| json.error("n_routed_experts", "must not be 0"))?;
        let mut scores = mixtures::groups(json, router)?;
        scores.scale = json.get("routed_scaling_factor")?.unwrap_or(1.0);
        router.scores = Scores::Sigmoid(scores);
        let inner = json.size("moe_intermediate_size")?.unwrap_or(1408);
        let shared = json.size("n_shared_experts")?.unwrap_or(1);
        let shared = MlpConfig::new([inner * shared, dense.hidden]);
        let mixture = MixtureConfig {
            shared: Some(SharedConfig::Plain(shared)),
            ..MixtureConfig::new([inner, dense.hidden], router)
        };
        let first = json.get("first_k_dense_replace")?.unwrap_or(1_usize);
        let kind = |layer: usize| match layer < first {
            true => dense.clone().into(),
            false => mixture.clone().into(),
        };
        Ok((0..layers).map(kind).collect())
    },
    positions: 131_072,
    ..LlamaLike::new(&["glm4_moe"])
};

static WITH_NORMS: LlamaLike = LlamaLike {
    head_norm: HeadNorm::Each,
    ..PLAIN
};

/// One of the two, as `use_qk_norm` says.
struct Glm4Moe;

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&Glm4Moe);

crate::register_architecture!(REGISTRATION);

impl Architecture for Glm4Moe {
    fn name(&self) -> &'static str {
        PLAIN.name()
    }

    fn model_types(&self) -> &'static [&'static str] {
        PLAIN.model_types
    }

    fn describe(&self, json: Object) -> Result<ModelSpec> {
        let filled = json.over(json!({"num_key_value_heads": 8}));
        let json = json.with_value(&filled);
        match json.flag("use_qk_norm")? {
            true => WITH_NORMS.describe(json),
            false => PLAIN.describe(json),
        }
    }
}
