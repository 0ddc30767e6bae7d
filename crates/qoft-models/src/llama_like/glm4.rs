//! `glm4`: norms around the sublayers, rotary positions of neighbouring features, fused feed-forward layers.

use super::{Biases, LlamaLike};
use crate::decoder::{MlpInput, NormPlacement, RopeDefaults, RopePairs};
use crate::registry::ArchitectureRegistration;

static GLM4: LlamaLike = LlamaLike {
    padding: Some(151_329),
    eps: 1.5625e-7,
    head_dim: Some(128),
    mlp_input: MlpInput::GatedFused,
    norms: NormPlacement::AroundSublayers,
    rope: RopeDefaults {
        pairs: RopePairs::Neighbours,
        ..RopeDefaults::USUAL.with_partial_rotary_factor(0.5)
    },
    biases: |json| {
        Ok(Biases {
            qkv: json.get("attention_bias")?.unwrap_or(true),
            ..Biases::default()
        })
    },
    positions: 131_072,
    ..LlamaLike::new(&["glm4"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&GLM4);

crate::register_architecture!(REGISTRATION);
