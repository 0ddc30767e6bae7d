//! The metadata of a file from the configuration of transformers.

use qoft_scheme::{Keys, Result};

use super::keys::NewKeys;
use crate::config::{GLOBAL, Heads, is_sliding, score_scale};
use crate::model::Kind;

/// What is written of a configuration, and sizes that tensors have.
pub struct Config {
    /// The configuration.
    pub keys: Keys,
    /// The kind of model in files.
    pub kind: Kind,
    /// Blocks.
    pub layers: usize,
    /// Heads.
    pub heads: Heads,
}

impl Config {
    /// Reads a configuration. `shape` tells the shape of a tensor of the model.
    ///
    /// # Errors
    /// If files have no name for the model, or for what its configuration asks for.
    pub fn read(keys: Keys, shape: impl Fn(&str) -> Option<Vec<usize>>) -> Result<Self> {
        let model_type: Option<String> = keys.get("model_type")?;
        let model_type = model_type.unwrap_or_default();
        let Some(kind) = Kind::of_model_type(&model_type) else {
            let known: Vec<&str> = Kind::model_types().collect();
            let reason = format!(
                "`{model_type}` is not written to GGUF files, only {} are; `qoft merge --dequantize` \
                 writes a folder that llama.cpp's convert_hf_to_gguf.py may know",
                known.join(", ")
            );
            return Err(keys.error("model_type", reason));
        };
        let layers = required(&keys, "num_hidden_layers")?;
        let queries = required(&keys, "num_attention_heads")?;
        // Configurations may leave the other two out, with another default in each class.
        let columns =
            shape("model.layers.0.self_attn.o_proj.weight").and_then(|s| s.get(1).copied());
        let rows = |name: &str| {
            let name = format!("model.layers.0.self_attn.{name}.weight");
            shape(&name).and_then(|shape| shape.first().copied())
        };
        let width = columns.filter(|columns| queries > 0 && columns.is_multiple_of(queries));
        let width = width
            .map(|columns| columns / queries)
            .filter(|width| *width > 0);
        let width = width.ok_or_else(|| {
            let reason = format!("{queries} heads do not divide the columns of o_proj");
            keys.error("num_attention_heads", reason)
        })?;
        let keys_rows = match kind.fused {
            true => rows("qkv_proj")
                .and_then(|rows| rows.checked_sub(queries * width))
                .map(|r| r / 2),
            false => rows("k_proj"),
        };
        let shared = keys_rows.filter(|rows| *rows > 0 && rows.is_multiple_of(width));
        let shared = shared.ok_or_else(|| {
            let reason = format!("the rows of keys are no multiple of heads of {width} features");
            keys.error("num_key_value_heads", reason)
        })?;
        let config = Self {
            keys,
            kind,
            layers,
            heads: Heads {
                queries,
                keys: shared / width,
                width,
            },
        };
        config.check()?;
        Ok(config)
    }

    /// Experts of a mixture; 0 in other models.
    ///
    /// # Errors
    /// If files cannot say what the configuration asks for.
    pub fn experts(&self) -> Result<usize> {
        let Some(mixture) = &self.kind.mixture else {
            return Ok(0);
        };
        let sizes = mixture.sizes(&self.keys)?;
        let count = sizes.iter().find(|(name, _)| *name == "expert_count");
        Ok(count.map_or(0, |(_, count)| *count))
    }

    /// Refuses what files cannot say.
    fn check(&self) -> Result<()> {
        let keys = &self.keys;
        if self.kind.gemma {
            return self.check_gemma();
        }
        let act: Option<String> = keys.get("hidden_act")?;
        if let Some(act) = act.filter(|act| !matches!(act.as_str(), "silu" | "swish")) {
            return Err(keys.error("hidden_act", format!("`{act}`: files always mean silu")));
        }
        if self.kind.name == "smollm3" {
            let rotated: Option<Vec<usize>> = keys.get("no_rope_layers")?;
            let expected = (1..=self.layers).map(|layer| usize::from(layer % 4 != 0));
            if rotated.is_some_and(|rotated| !rotated.iter().copied().eq(expected)) {
                let reason = "llama.cpp leaves every fourth layer without positions, and no others";
                return Err(keys.error("no_rope_layers", reason));
            }
        }
        let window: Option<usize> = keys.get("sliding_window")?;
        let longest = required(keys, "max_position_embeddings")?;
        let used = keys.flag(
            "use_sliding_window",
            matches!(self.kind.class, "MistralForCausalLM" | "MixtralForCausalLM"),
        )?;
        if let Some(window) = window.filter(|window| *window < longest)
            && used
            && self.kind.name != "phi3"
        {
            tracing::warn!(
                "the model's window of {window} tokens is not in the file, since llama.cpp has none \
                 for this kind of model: longer texts come out differently"
            );
        }
        Ok(())
    }

    /// Refuses what files of Gemma 3 leave out, where it is not what they mean.
    fn check_gemma(&self) -> Result<()> {
        let keys = &self.keys;
        let act: Option<String> = keys.get("hidden_activation")?;
        if let Some(act) = act.filter(|act| act != "gelu_pytorch_tanh") {
            let reason = format!("`{act}`: files always mean gelu_pytorch_tanh");
            return Err(keys.error("hidden_activation", reason));
        }
        let types: Option<Vec<String>> = keys.get("layer_types")?;
        let usual =
            |(layer, kind): (usize, &String)| is_sliding(layer) == (kind == "sliding_attention");
        let pattern: Option<usize> = keys.get("sliding_window_pattern")?;
        let other = types.is_some_and(|types| !types.iter().enumerate().all(usual));
        if other || pattern.is_some_and(|pattern| pattern != GLOBAL) {
            let reason = "in files every sixth layer sees all of a text, and no others";
            return Err(keys.error("layer_types", reason));
        }
        let hidden = required(keys, "hidden_size")?;
        let expected = score_scale(self.layers, self.heads, hidden);
        let scale: Option<f64> = keys.get("query_pre_attn_scalar")?;
        let scale = scale.unwrap_or(256.0);
        if scale != expected as f64 {
            let reason = format!("{scale}, and files always mean {expected}");
            return Err(keys.error("query_pre_attn_scalar", reason));
        }
        Ok(())
    }

    /// Writes what is known of the model but its positions.
    ///
    /// # Errors
    /// If a key is missing or of another type.
    pub fn write(&self, vocab_size: usize, out: &mut NewKeys) -> Result<()> {
        let Self { keys, kind, .. } = self;
        let Heads {
            queries,
            keys: shared,
            width,
        } = self.heads;
        let mut size = |name: &str, value: usize| out.size(&kind.key(name), value);
        size("block_count", self.layers);
        size("context_length", required(keys, "max_position_embeddings")?);
        size("embedding_length", required(keys, "hidden_size")?);
        size("feed_forward_length", required(keys, "intermediate_size")?);
        size("attention.head_count", queries);
        size("attention.head_count_kv", shared);
        size("attention.key_length", width);
        size("attention.value_length", width);
        size("vocab_size", vocab_size);
        if let Some(mixture) = &kind.mixture {
            for (name, value) in mixture.sizes(keys)? {
                size(name, value);
            }
        }
        if matches!(kind.name, "phi3" | "gemma3") {
            let window: Option<usize> = keys.get("sliding_window")?;
            let default = if kind.gemma { 4096 } else { 0 };
            size("attention.sliding_window", window.unwrap_or(default));
        }
        let eps: Option<f64> = keys.get("rms_norm_eps")?;
        let default = if kind.name == "phi3" { 1e-5 } else { 1e-6 };
        let eps = eps.unwrap_or(default);
        out.float(&kind.key("attention.layer_norm_rms_epsilon"), eps);
        let cap: Option<f64> = keys.get("final_logit_softcapping")?;
        if let Some(cap) = cap.filter(|_| kind.gemma) {
            out.float(&kind.key("final_logit_softcapping"), cap);
        }
        Ok(())
    }
}

/// A size that must be there.
pub fn required(keys: &Keys, key: &str) -> Result<usize> {
    let value: Option<usize> = keys.get(key)?;
    value.ok_or_else(|| keys.error(key, "is missing"))
}
