//! `llama`.

use super::{LlamaLike, all_biases};
use crate::registry::ArchitectureRegistration;

pub static LLAMA: LlamaLike = LlamaLike {
    biases: all_biases,
    ..LlamaLike::new(&["llama"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&LLAMA);

crate::register_architecture!(REGISTRATION);
