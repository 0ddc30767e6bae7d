//! `qwen3_moe`: norms on the heads of queries and keys, mixtures of experts in all layers or some.

use super::{LlamaLike, attention_biases, mixtures, windows};
use crate::decoder::{HeadNorm, MixtureConfig};
use crate::registry::ArchitectureRegistration;

static QWEN3_MOE: LlamaLike = LlamaLike {
    head_norm: HeadNorm::Each,
    biases: attention_biases,
    layers: windows::everywhere_if_in_use,
    feed_forward: |json, layers, dense| {
        let defaults = mixtures::Defaults {
            experts: 128,
            top_k: 8,
        };
        let normalized = mixtures::norm_topk_prob(json)?;
        let router = mixtures::router(json, layers, defaults, normalized)?;
        let inner = json.size("moe_intermediate_size")?.unwrap_or(768);
        let mixture = router.map(|router| MixtureConfig::new([inner, dense.hidden], router));
        mixtures::in_some_layers(json, layers, dense, mixture)
    },
    positions: 32_768,
    ..LlamaLike::new(&["qwen3_moe"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&QWEN3_MOE);

crate::register_architecture!(REGISTRATION);
