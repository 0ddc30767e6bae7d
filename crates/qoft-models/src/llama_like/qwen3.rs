//! `qwen3`: norms on the heads of queries and keys.

use super::{LlamaLike, attention_biases, windows};
use crate::decoder::HeadNorm;
use crate::registry::ArchitectureRegistration;

static QWEN3: LlamaLike = LlamaLike {
    head_dim: Some(128),
    head_norm: HeadNorm::Each,
    biases: attention_biases,
    layers: windows::in_later_layers,
    positions: 32_768,
    ..LlamaLike::new(&["qwen3"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&QWEN3);

crate::register_architecture!(REGISTRATION);
