//! `olmo2`: norms after the sublayers, and on whole queries and keys.

use super::{LlamaLike, attention_biases};
use crate::decoder::{HeadNorm, NormPlacement};
use crate::registry::ArchitectureRegistration;

static OLMO2: LlamaLike = LlamaLike {
    padding: Some(1),
    eps: 1e-5,
    head_norm: HeadNorm::Whole,
    norms: NormPlacement::After,
    biases: attention_biases,
    ..LlamaLike::new(&["olmo2"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&OLMO2);

crate::register_architecture!(REGISTRATION);
