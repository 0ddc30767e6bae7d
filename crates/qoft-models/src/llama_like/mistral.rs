//! `mistral`: sliding windows in all layers.

use super::{LlamaLike, windows};
use crate::registry::ArchitectureRegistration;

pub static MISTRAL: LlamaLike = LlamaLike {
    layers: |json, layers| windows::everywhere(json, Some(windows::DEFAULT), layers),
    positions: 131_072,
    ..LlamaLike::new(&["mistral"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&MISTRAL);

crate::register_architecture!(REGISTRATION);
