//! StarCoder2 (`model_type: "starcoder2"`), a model for code.
//!
//! It has the attention of llama with biases and a sliding window, but norms of mean and variance,
//! and plain feed-forward layers. Numbers are those of transformers' `Starcoder2ForCausalLM`.

mod block;
mod body;
mod config;
mod mlp;

use qoft_core::Result;
use qoft_models::{
    Architecture, ArchitectureRegistration, ModelConfig, ModelNames, ModelSpec, Object, SizeKeys,
    register_architecture,
};

use config::Starcoder2Config;

/// The architecture.
#[derive(Debug, Clone, Copy)]
pub struct Starcoder2;

/// The registration of [`Starcoder2`].
pub static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&Starcoder2);

register_architecture!(REGISTRATION);

impl Architecture for Starcoder2 {
    fn name(&self) -> &'static str {
        "starcoder2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["starcoder2"]
    }

    fn describe(&self, json: Object) -> Result<ModelSpec> {
        let mut model = ModelConfig::read(json, &SizeKeys::USUAL)?;
        // Head and embedding table are one in files that do not say so.
        model.tie_word_embeddings = json.get("tie_word_embeddings")?.unwrap_or(true);
        let config = Starcoder2Config::read(json, &model)?;
        ModelSpec::new(model, ModelNames::USUAL, config)
    }
}
