//! The text part of `mistral3`, whose files read pictures as well: a model type of its own.

use qoft_core::Result;
use serde_json::json;

use super::LlamaLike;
use super::llama::LLAMA;
use super::ministral3::MINISTRAL3;
use super::mistral::MISTRAL;
use crate::architecture::Architecture;
use crate::config::ModelNames;
use crate::json::Object;
use crate::registry::ArchitectureRegistration;
use crate::spec::ModelSpec;

struct Mistral3;

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&Mistral3);

crate::register_architecture!(REGISTRATION);

/// The types that a text part may have.
static PARTS: [(&str, &LlamaLike); 3] = [
    ("llama", &LLAMA),
    ("ministral3", &MINISTRAL3),
    ("mistral", &MISTRAL),
];

impl Architecture for Mistral3 {
    fn name(&self) -> &'static str {
        "mistral3"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["mistral3"]
    }

    fn describe(&self, root: Object) -> Result<ModelSpec> {
        let part = root.require_object("text_config", "text_config.")?;
        // What transformers' configuration class has for keys that a file leaves out.
        let filled = part.over(json!({"model_type": "mistral"}));
        let part = part.with_value(&filled);
        let whole = root.over(json!({"tie_word_embeddings": true}));
        let kind = part.choice("model_type", &PARTS)?;
        let kind = kind.ok_or_else(|| part.error("model_type", "is missing"))?;
        kind.describe_part(root.with_value(&whole), part, ModelNames::TEXT_PART)
    }
}
