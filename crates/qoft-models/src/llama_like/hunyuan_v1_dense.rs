//! `hunyuan_v1_dense`: norms on heads behind their rotary positions.

use super::{LlamaLike, attention_biases};
use crate::decoder::{AttentionNames, HeadNorm, RopeDefaults};
use crate::registry::ArchitectureRegistration;

static HUNYUAN_V1_DENSE: LlamaLike = LlamaLike {
    padding: Some(0),
    eps: 1e-5,
    attention_names: AttentionNames::USUAL.with_norms("query_layernorm", "key_layernorm"),
    head_norm: HeadNorm::EachPositioned,
    rope: RopeDefaults {
        alpha: true,
        ..RopeDefaults::USUAL
    },
    biases: attention_biases,
    ..LlamaLike::new(&["hunyuan_v1_dense"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&HUNYUAN_V1_DENSE);

crate::register_architecture!(REGISTRATION);
