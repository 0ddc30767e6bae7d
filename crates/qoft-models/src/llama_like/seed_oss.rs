//! `seed_oss`: biases of the projections' inputs, and of their outputs by a key of its own.

use super::{Biases, LlamaLike};
use crate::registry::ArchitectureRegistration;

static SEED_OSS: LlamaLike = LlamaLike {
    padding: Some(1),
    head_dim: Some(128),
    biases: |json| {
        Ok(Biases {
            qkv: json.get("attention_bias")?.unwrap_or(true),
            output: json.flag("attention_out_bias")?,
            mlp: json.flag("mlp_bias")?,
        })
    },
    positions: 524_288,
    ..LlamaLike::new(&["seed_oss"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&SEED_OSS);

crate::register_architecture!(REGISTRATION);
