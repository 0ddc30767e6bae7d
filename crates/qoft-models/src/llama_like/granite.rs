//! `granite`: scaled embeddings, residuals, scores and logits.

use qoft_core::{Error, Result};

use super::{LlamaLike, Multipliers, all_biases};
use crate::json::Object;
use crate::registry::ArchitectureRegistration;

static GRANITE: LlamaLike = LlamaLike {
    biases: all_biases,
    multipliers,
    ..LlamaLike::new(&["granite"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&GRANITE);

crate::register_architecture!(REGISTRATION);

/// What embeddings, residuals, scores and logits are multiplied by.
pub fn multipliers(json: Object) -> Result<Multipliers> {
    let get = |key| Ok::<f64, Error>(json.positive(key)?.unwrap_or(1.0));
    Ok(Multipliers {
        embedding: get("embedding_multiplier")?,
        residual: get("residual_multiplier")?,
        attention: Some(get("attention_multiplier")?),
        logits: 1.0 / get("logits_scaling")?,
    })
}
