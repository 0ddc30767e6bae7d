//! `ministral3`: `mistral` with queries that grow beyond the length of pretraining.

use qoft_core::Result;

use super::{LlamaLike, windows};
use crate::decoder::QueryGrowth;
use crate::json::Object;
use crate::registry::ArchitectureRegistration;

pub static MINISTRAL3: LlamaLike = LlamaLike {
    padding: Some(11),
    eps: 1e-5,
    head_dim: Some(128),
    layers: |json, layers| windows::everywhere(json, None, layers),
    query_growth,
    positions: 262_144,
    ..LlamaLike::new(&["ministral3"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&MINISTRAL3);

crate::register_architecture!(REGISTRATION);

/// The keys are among those of the rotary positions. The length in pretraining may be at the root, too.
fn query_growth(json: Object) -> Result<Option<QueryGrowth>> {
    let rope = match json.object("rope_scaling", "rope_scaling.")? {
        Some(rope) => Some(rope),
        None => json.object("rope_parameters", "rope_parameters.")?,
    };
    let rope = rope.ok_or_else(|| json.error("rope_parameters", "is missing"))?;
    let key = "original_max_position_embeddings";
    let length = match json.size(key)? {
        Some(length) => length,
        None => match rope.size(key)? {
            Some(length) => length,
            None => json.require_size("max_position_embeddings")?,
        },
    };
    let beta = rope.require("llama_4_scaling_beta")?;
    Ok(Some(QueryGrowth::new(beta, length)))
}
