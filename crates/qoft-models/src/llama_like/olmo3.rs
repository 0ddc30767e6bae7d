//! `olmo3`: `olmo2` with a window in three of four layers, which have rotary positions of their own.

use super::{LlamaLike, attention_biases, windows};
use crate::decoder::{HeadNorm, NormPlacement, RopeDefaults};
use crate::registry::ArchitectureRegistration;

static OLMO3: LlamaLike = LlamaLike {
    padding: Some(1),
    eps: 1e-5,
    head_norm: HeadNorm::Whole,
    norms: NormPlacement::After,
    biases: attention_biases,
    rope: RopeDefaults {
        layer_type: Some("full_attention"),
        ..RopeDefaults::USUAL.with_theta(THETA)
    },
    // As in transformers, `rope_theta` and `rope_scaling` are about the other layers.
    window_rope: Some(RopeDefaults {
        layer_type: Some("sliding_attention"),
        theta_key: None,
        scaled: false,
        ..RopeDefaults::USUAL.with_theta(THETA)
    }),
    layers: |json, layers| windows::in_all_but_every(json, 4, windows::DEFAULT, layers),
    ..LlamaLike::new(&["olmo3"])
};

const THETA: f64 = 500_000.0;

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&OLMO3);

crate::register_architecture!(REGISTRATION);
