//! The kinds of models that files hold.

use qoft_scheme::Result;

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
}

const USUAL: Kind = Kind {
    name: "",
    model_type: "",
    class: "",
    permuted: false,
    fused: false,
    gemma: false,
};

/// All of them.
const KINDS: [Kind; 7] = [
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
            "mistral" => Self {
                name: "llama",
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
