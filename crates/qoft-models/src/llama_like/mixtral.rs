//! `mixtral`: mixtures of experts in all layers, under names of their own; a sliding window if there is one.

use super::{LlamaLike, mixtures, windows};
use crate::decoder::{FeedForwardName, MixtureConfig, MlpNames, RopeDefaults};
use crate::registry::ArchitectureRegistration;

static MIXTRAL: LlamaLike = LlamaLike {
    eps: 1e-5,
    rope: RopeDefaults::USUAL.with_theta(1e6),
    layers: |json, layers| windows::everywhere(json, None, layers),
    feed_forward: |json, layers, dense| {
        json.warn_of_dropout(&["router_jitter_noise"])?;
        let defaults = mixtures::Defaults {
            experts: 8,
            top_k: 2,
        };
        let router = mixtures::router(json, layers, defaults, true)?;
        let router = router.ok_or_else(|| json.error("num_local_experts", "must not be 0"))?;
        let mut mixture = MixtureConfig::new([dense.inner, dense.hidden], router);
        mixture.experts.names = MlpNames {
            gate_proj: "w1",
            up_proj: "w3",
            down_proj: "w2",
            ..MlpNames::USUAL
        };
        Ok(vec![mixture.into(); layers])
    },
    feed_forward_name: FeedForwardName::BlockSparseMoe,
    positions: 131_072,
    ..LlamaLike::new(&["mixtral"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&MIXTRAL);

crate::register_architecture!(REGISTRATION);
