//! What every model has in its `config.json`, and the names that its modules have.

use qoft_core::Result;
use qoft_core::kernels::ops::SoftCap;

use crate::json::Object;

/// More blocks than any model has.
const MOST_BLOCKS: usize = 10_000;

/// The sizes and options that are common to all models.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// `model_type` as `config.json` has it.
    pub model_type: String,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// The longest sequence that the model is meant for.
    pub max_position_embeddings: usize,
    /// The longest sequence that the model can compute at all; `None` where there is no limit, as
    /// with rotary positions.
    pub longest_sequence: Option<usize>,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// What the logits are multiplied by.
    pub logits_multiplier: f64,
    /// Bounds the multiplied logits.
    pub logits_soft_cap: Option<SoftCap>,
}

/// The keys of the sizes, which some model types call otherwise.
///
/// Made from [`Self::USUAL`], in which an architecture sets those that it calls otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the usual keys")]
#[non_exhaustive]
pub struct SizeKeys {
    pub vocab_size: &'static str,
    pub hidden_size: &'static str,
    pub num_hidden_layers: &'static str,
    pub max_position_embeddings: &'static str,
}

impl SizeKeys {
    /// The usual ones.
    pub const USUAL: Self = Self {
        vocab_size: "vocab_size",
        hidden_size: "hidden_size",
        num_hidden_layers: "num_hidden_layers",
        max_position_embeddings: "max_position_embeddings",
    };
}

impl ModelConfig {
    /// Reads what is common to all models. Sequences have no limit, and logits stay as they are;
    /// an architecture for which that is otherwise sets the fields.
    ///
    /// # Errors
    /// If a value is missing or impossible.
    pub fn read(json: Object, keys: &SizeKeys) -> Result<Self> {
        if json.get("is_causal")? == Some(false) {
            return Err(json.error("is_causal", "attention to later tokens is not supported"));
        }
        let blocks = json.require_size(keys.num_hidden_layers)?;
        if blocks > MOST_BLOCKS {
            let reason = format!("{blocks} is more than {MOST_BLOCKS}");
            return Err(json.error(keys.num_hidden_layers, reason));
        }
        Ok(Self {
            model_type: json.require("model_type")?,
            vocab_size: json.require_size(keys.vocab_size)?,
            hidden_size: json.require_size(keys.hidden_size)?,
            num_hidden_layers: blocks,
            max_position_embeddings: json.require_size(keys.max_position_embeddings)?,
            longest_sequence: None,
            tie_word_embeddings: json.flag("tie_word_embeddings")?,
            logits_multiplier: 1.0,
            logits_soft_cap: None,
        })
    }
}

/// The names of a model's parts, as transformers has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelNames {
    /// Module path of everything but the output head: `model`. Files of a model that was saved
    /// without its head lack it.
    pub base: &'static str,
    /// Module path of the table of the tokens, below `base`: `embed_tokens`.
    pub tokens: &'static str,
    /// Module path of the output head: `lm_head`.
    pub head: &'static str,
    /// Ends of the names of buffers that older versions saved and newer ones compute. Nothing reads
    /// them; they are kept, and nobody is told of them.
    pub buffers: &'static [&'static str],
    /// Paths that modules have in files of older versions, and those that they have in the model.
    pub older_paths: &'static [(&'static str, &'static str)],
    /// The layers that get an adapter unless others are named, for model types that PEFT has no
    /// default for: last components of module paths.
    pub targets: &'static [&'static str],
    /// Module paths of parts that files and adapters may have beside the model, and that are not
    /// computed: those that read pictures.
    pub other_parts: &'static [&'static str],
    /// Another path of the base, which it has where transformers loads the text part of such files alone.
    pub base_alone: Option<&'static str>,
}

impl ModelNames {
    /// The names of most models: `model`, `embed_tokens` and `lm_head`, with adapters on queries and
    /// values.
    pub const USUAL: Self = Self {
        base: "model",
        tokens: "embed_tokens",
        head: "lm_head",
        buffers: &[".rotary_emb.inv_freq"],
        older_paths: &[],
        targets: &["q_proj", "v_proj"],
        other_parts: &[],
        base_alone: None,
    };

    /// Those of the text part of a model that reads pictures as well, as transformers 5 has it, and those that
    /// files of older versions have.
    pub const TEXT_PART: Self = Self::USUAL
        .with_base("model.language_model")
        .with_older_paths(&[
            ("language_model.model", "model.language_model"),
            ("language_model.lm_head", "lm_head"),
            ("vision_tower", "model.vision_tower"),
            ("multi_modal_projector", "model.multi_modal_projector"),
        ])
        .with_other_parts(&["model.vision_tower", "model.multi_modal_projector"]);

    /// With another path of the base where transformers loads the text part alone.
    #[must_use]
    pub const fn with_base_alone(self, base: &'static str) -> Self {
        Self {
            base_alone: Some(base),
            ..self
        }
    }

    /// With another path of everything but the output head.
    #[must_use]
    pub const fn with_base(self, base: &'static str) -> Self {
        Self { base, ..self }
    }

    /// With another path of the table of the tokens, below the base.
    #[must_use]
    pub const fn with_tokens(self, tokens: &'static str) -> Self {
        Self { tokens, ..self }
    }

    /// With another path of the output head.
    #[must_use]
    pub const fn with_head(self, head: &'static str) -> Self {
        Self { head, ..self }
    }

    /// With ends of the names of buffers that nothing reads.
    #[must_use]
    pub const fn with_buffers(self, buffers: &'static [&'static str]) -> Self {
        Self { buffers, ..self }
    }

    /// With paths that modules have in files of older versions, and those that they have in the
    /// model. The first path that fits counts.
    #[must_use]
    pub const fn with_older_paths(
        self,
        older_paths: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self {
            older_paths,
            ..self
        }
    }

    /// With the layers that get an adapter unless others are named.
    #[must_use]
    pub const fn with_targets(self, targets: &'static [&'static str]) -> Self {
        Self { targets, ..self }
    }

    /// With module paths of parts that are not computed.
    #[must_use]
    pub const fn with_other_parts(self, other_parts: &'static [&'static str]) -> Self {
        Self {
            other_parts,
            ..self
        }
    }

    /// Module path of the table of the tokens in the whole model.
    pub fn token_table(&self) -> String {
        format!("{}.{}", self.base, self.tokens)
    }

    /// Whether a tensor is a buffer that nothing reads.
    pub(crate) fn is_buffer(&self, name: &str) -> bool {
        self.buffers.iter().any(|end| name.ends_with(end))
    }

    /// The name that a tensor has in the whole model, for files with or without the path of the
    /// base. `in_base` tells whether there is such a tensor in the base.
    pub(crate) fn in_model(&self, name: &str, in_base: impl Fn(&str) -> bool) -> String {
        let older = self.older_paths.iter().find(|(old, _)| is_below(name, old));
        if let Some((old, path)) = older {
            return format!("{path}{}", &name[old.len()..]);
        }
        let longer = format!("{}.{name}", self.base);
        let is_buffer = self.is_buffer(name) && !is_below(name, self.base);
        match is_buffer || in_base(&longer) {
            true => longer,
            false => name.to_owned(),
        }
    }
}

/// Whether a tensor belongs to the module at `path`.
fn is_below(name: &str, path: &str) -> bool {
    let rest = name.strip_prefix(path);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_whole_model() {
        const NAMES: ModelNames = ModelNames::USUAL
            .with_base("transformer")
            .with_tokens("wte")
            .with_buffers(&[".attn.bias"]);
        let known = ["h.0.ln_1.weight", "wte.weight", "h.3.attn.c_attn.bias"];
        let known = known.map(|name| format!("transformer.{name}"));
        let bare = |name| NAMES.in_model(name, |longer| known.iter().any(|known| known == longer));
        assert_eq!(bare("wte.weight"), "transformer.wte.weight");
        assert_eq!(bare("transformer.wte.weight"), "transformer.wte.weight");
        assert_eq!(bare("lm_head.weight"), "lm_head.weight");
        assert_eq!(bare("v_head.weight"), "v_head.weight");
        for buffer in ["h.3.attn.bias", "transformer.h.3.attn.bias"] {
            assert_eq!(bare(buffer), "transformer.h.3.attn.bias");
        }
        let bias = "h.3.attn.c_attn.bias";
        assert_eq!(bare(bias), format!("transformer.{bias}"));
        assert!(NAMES.is_buffer("h.3.attn.bias") && !NAMES.is_buffer(bias));
    }
}
