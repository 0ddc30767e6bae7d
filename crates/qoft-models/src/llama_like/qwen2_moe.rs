//! `qwen2_moe`: biases on queries, keys and values, mixtures of experts with one that all tokens meet,
//! sliding windows in every other of the first layers.

use super::{Biases, LlamaLike, mixtures, windows};
use crate::decoder::{MixtureConfig, MlpConfig, SharedConfig};
use crate::registry::ArchitectureRegistration;

static QWEN2_MOE: LlamaLike = LlamaLike {
    biases: |json| {
        Ok(Biases {
            qkv: json.get("qkv_bias")?.unwrap_or(true),
            ..Biases::default()
        })
    },
    layers: windows::in_every_other_first_layer,
    feed_forward: |json, layers, dense| {
        let defaults = mixtures::Defaults {
            experts: 60,
            top_k: 4,
        };
        let normalized = mixtures::norm_topk_prob(json)?;
        let router = mixtures::router(json, layers, defaults, normalized)?;
        let inner = json.size("moe_intermediate_size")?.unwrap_or(1408);
        let shared = json
            .size("shared_expert_intermediate_size")?
            .unwrap_or(5632);
        let mixture = router.map(|router| MixtureConfig {
            shared: Some(SharedConfig::Gated(MlpConfig::new([shared, dense.hidden]))),
            ..MixtureConfig::new([inner, dense.hidden], router)
        });
        mixtures::in_some_layers(json, layers, dense, mixture)
    },
    positions: 32_768,
    ..LlamaLike::new(&["qwen2_moe"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&QWEN2_MOE);

crate::register_architecture!(REGISTRATION);
