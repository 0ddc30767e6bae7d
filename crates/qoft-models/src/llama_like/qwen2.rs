//! `qwen2`: biases on queries, keys and values; sliding windows in later layers.

use super::{Biases, LlamaLike, windows};
use crate::registry::ArchitectureRegistration;

static QWEN2: LlamaLike = LlamaLike {
    biases: |_| {
        Ok(Biases {
            qkv: true,
            ..Biases::default()
        })
    },
    layers: windows::in_later_layers,
    positions: 32_768,
    ..LlamaLike::new(&["qwen2"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&QWEN2);

crate::register_architecture!(REGISTRATION);
