//! `olmoe`: norms on whole queries and keys, which may be cut off; mixtures of experts in all layers.

use super::{LlamaLike, attention_biases, mixtures};
use crate::decoder::{HeadNorm, MixtureConfig};
use crate::registry::ArchitectureRegistration;

static OLMOE: LlamaLike = LlamaLike {
    padding: Some(1),
    eps: 1e-5,
    head_norm: HeadNorm::Whole,
    biases: attention_biases,
    clip_key: Some("clip_qkv"),
    feed_forward: |json, layers, dense| {
        let defaults = mixtures::Defaults {
            experts: 64,
            top_k: 8,
        };
        let normalized = mixtures::norm_topk_prob(json)?;
        let router = mixtures::router(json, layers, defaults, normalized)?;
        let router = router.ok_or_else(|| json.error("num_experts", "must not be 0"))?;
        let mixture = MixtureConfig::new([dense.inner, dense.hidden], router);
        Ok(vec![mixture.into(); layers])
    },
    positions: 4_096,
    ..LlamaLike::new(&["olmoe"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&OLMOE);

crate::register_architecture!(REGISTRATION);
