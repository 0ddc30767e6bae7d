//! StableLM (`model_type: "stablelm"`).
//!
//! It has the attention of llama with rotary positions on a part of each head, but norms of mean and
//! variance, and blocks whose feed-forward layers may stand beside the attention. Numbers are those of
//! transformers' `StableLmForCausalLM`.

mod block;
mod body;
mod config;
mod mlp;

use qoft_core::Result;
use qoft_models::{
    Architecture, ArchitectureRegistration, ModelConfig, ModelNames, ModelSpec, Object, SizeKeys,
    register_architecture,
};

use config::StableLmConfig;

/// The architecture.
#[derive(Debug, Clone, Copy)]
pub struct StableLm;

/// The registration of [`StableLm`].
pub static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&StableLm);

register_architecture!(REGISTRATION);

impl Architecture for StableLm {
    fn name(&self) -> &'static str {
        "stablelm"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["stablelm"]
    }

    fn describe(&self, json: Object) -> Result<ModelSpec> {
        let model = ModelConfig::read(json, &SizeKeys::USUAL)?;
        let config = StableLmConfig::read(json, &model)?;
        ModelSpec::new(model, ModelNames::USUAL, config)
    }
}
