//! The kinds of models that files hold.

use qoft_scheme::Result;

use crate::experts::{MIXTRAL, Mixture, OLMOE, QWEN2, QWEN3};
use crate::file::Metadata;

/// A kind of model, by the name that files have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// `general.architecture`.
    pub name: &'static str,
    /// `model_type` of a configuration.
    pub model_type: &'static str,
    /// The class of transformers.
    pub class: &'static str,
    /// Rows of queries and keys are in the order of interleaved rotary positions.
    pub permuted: bool,
    /// Queries, keys and values are one tensor, and so are gate and up.
    pub fused: bool,
    /// Norms are stored with 1 added, stand around sublayers, and most layers see a window only.
    pub gemma: bool,
    /// Where its experts are, in a mixture.
    pub mixture: Option<Mixture>,
}

const USUAL: Kind = Kind {
    name: "",
    model_type: "",
    class: "",
    permuted: false,
    fused: false,
    gemma: false,
    mixture: None,
};

/// The kind of files that Mixtral shares with Llama.
const LLAMA: &str = "llama";

/// All of them.
const KINDS: [Kind; 11] = [
    Kind {
        name: "llama",
        model_type: "llama",
        class: "LlamaForCausalLM",
        permuted: true,
        ..USUAL
    },
    Kind {
        name: "mistral",
        model_type: "mistral",
        class: "MistralForCausalLM",
        permuted: true,
        ..USUAL
    },
    Kind {
        name: "qwen2",
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        ..USUAL
    },
    Kind {
        name: "qwen3",
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        ..USUAL
    },
    Kind {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        gemma: true,
        ..USUAL
    },
    Kind {
        name: "phi3",
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        fused: true,
        ..USUAL
    },
    Kind {
        name: "smollm3",
        model_type: "smollm3",
        class: "SmolLM3ForCausalLM",
        permuted: true,
        ..USUAL
    },
    Kind {
        name: "mixtral",
        model_type: "mixtral",
        class: "MixtralForCausalLM",
        permuted: true,
        mixture: Some(MIXTRAL),
        ..USUAL
    },
    Kind {
        name: "qwen2moe",
        model_type: "qwen2_moe",
        class: "Qwen2MoeForCausalLM",
        mixture: Some(QWEN2),
        ..USUAL
    },
    Kind {
        name: "qwen3moe",
        model_type: "qwen3_moe",
        class: "Qwen3MoeForCausalLM",
        mixture: Some(QWEN3),
        ..USUAL
    },
    Kind {
        name: "olmoe",
        model_type: "olmoe",
        class: "OlmoeForCausalLM",
        mixture: Some(OLMOE),
        ..USUAL
    },
];

impl Kind {
    /// That of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name == name)
    }

    /// That of a file.
    pub fn of_file(metadata: &Metadata) -> Result<Self> {
        let key = "general.architecture";
        let name = metadata.require(key, metadata.text(key))?;
        let experts = metadata.size(&format!("{name}.expert_count"))?;
        if name == LLAMA && experts.is_some_and(|count| count > 0) {
            return Ok(Self::of_model_type("mixtral").unwrap_or(USUAL));
        }
        Self::of_name(name).ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            let names = names.join(", ");
            metadata.error(
                key,
                format!("`{name}` is not supported; those that are: {names}"),
            )
        })
    }

    /// That in which models of a `model_type` are written.
    pub fn of_model_type(model_type: &str) -> Option<Self> {
        let kind = KINDS
            .into_iter()
            .find(|kind| kind.model_type == model_type)?;
        Some(match kind.name {
            // What llama.cpp's converter and programs call these, too.
            "mistral" | "mixtral" => Self {
                name: LLAMA,
                ..kind
            },
            _ => kind,
        })
    }

    /// The `model_type`s that are written.
    pub fn model_types() -> impl Iterator<Item = &'static str> {
        KINDS.into_iter().map(|kind| kind.model_type)
    }

    /// The key of this kind's value `name`.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }
}
