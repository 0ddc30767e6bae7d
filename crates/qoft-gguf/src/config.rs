//! The configuration of transformers from a file's metadata.

use qoft_scheme::Result;
use serde_json::{Map, Value, json};

use crate::file::{Entry, File, Metadata};
use crate::model::Kind;
use crate::rope;

/// The sizes that places of tensors depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// `num_attention_heads`.
    pub queries: usize,
    /// `num_key_value_heads`.
    pub keys: usize,
    /// Features of a head.
    pub width: usize,
}

impl Heads {
    /// Those of a file.
    pub fn read(kind: &Kind, metadata: &Metadata) -> Result<Self> {
        let size = |name: &str| metadata.same_size(&kind.key(name));
        let required = |name: &str| metadata.require(&kind.key(name), size(name));
        let queries = required("attention.head_count")?;
        let hidden = required("embedding_length")?;
        if queries == 0 {
            return Err(metadata.error(&kind.key("attention.head_count"), "is 0"));
        }
        Ok(Self {
            queries,
            keys: size("attention.head_count_kv")?.unwrap_or(queries),
            width: size("attention.key_length")?.unwrap_or(hidden / queries),
        })
    }
}

/// As `config.json` would have it. The metadata is that of the first of the files.
///
/// # Errors
/// If a key is missing or asks for what the kind of model does not have.
pub fn config(kind: &Kind, files: &[File]) -> Result<Value> {
    let metadata = &files[0].metadata;
    let tensors = || files.iter().flat_map(|file| &file.tensors);
    let has = |name: &str| tensors().any(|tensor| tensor.name == name);
    let key = |name: &str| kind.key(name);
    let required = |name: &str| metadata.require(&key(name), metadata.same_size(&key(name)));
    let heads = Heads::read(kind, metadata)?;
    let eps = key("attention.layer_norm_rms_epsilon");
    let eps = metadata.require(&eps, metadata.float(&eps))?;
    if kind.mixture.is_none() {
        refuse_experts(kind, metadata)?;
    }

    let mut config = Map::new();
    let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
    set("architectures", json!([kind.class]));
    set("model_type", kind.model_type.into());
    set("vocab_size", vocab_size(kind, metadata, tensors())?.into());
    set("hidden_size", required("embedding_length")?.into());
    let width = metadata.same_size(&key("feed_forward_length"))?;
    if kind.mixture.is_none() || width.is_some() {
        set("intermediate_size", required("feed_forward_length")?.into());
    }
    set("num_hidden_layers", required("block_count")?.into());
    set("num_attention_heads", heads.queries.into());
    set("num_key_value_heads", heads.keys.into());
    set("head_dim", heads.width.into());
    set(
        "max_position_embeddings",
        required("context_length")?.into(),
    );
    set("rms_norm_eps", eps.into());
    set("tie_word_embeddings", (!has("output.weight")).into());
    match kind.gemma {
        true => set("hidden_activation", "gelu_pytorch_tanh".into()),
        false => set("hidden_act", "silu".into()),
    };
    if kind.permuted || matches!(kind.name, "qwen3" | "qwen3moe" | "olmoe") {
        set("attention_bias", has("blk.0.attn_q.bias").into());
    }
    if has("blk.0.ffn_up.bias") {
        set("mlp_bias", true.into());
    }
    match metadata.size(&key("attention.sliding_window"))? {
        Some(window) if window > 0 => {
            set("sliding_window", window.into());
        }
        // These have a window unless told otherwise.
        _ if matches!(kind.model_type, "mistral" | "mixtral" | "phi3") => {
            set("sliding_window", Value::Null);
        }
        _ => {}
    }
    let tokens = [
        ("bos_token_id", "bos_token_id"),
        ("eos_token_id", "eos_token_id"),
        ("pad_token_id", "padding_token_id"),
    ];
    for (name, stored) in tokens {
        let id = metadata.size(&format!("tokenizer.ggml.{stored}"))?;
        set(name, id.map_or(Value::Null, Value::from));
    }
    set("torch_dtype", "float32".into());
    if kind.name == "qwen2moe" {
        set("qkv_bias", has("blk.0.attn_q.bias").into());
    }
    if let Some(mixture) = &kind.mixture {
        mixture.read(kind.name, files, &mut config)?;
    }
    if kind.gemma {
        gemma(metadata, heads, required("embedding_length")?, &mut config)?;
        return rope::read_by_layer(kind, metadata, &mut config).map(|()| Value::Object(config));
    }
    rope::read(kind, files, heads.width, &mut config)?;
    Ok(Value::Object(config))
}

/// Every so many layers of Gemma 3, one sees all of a text.
pub const GLOBAL: usize = 6;
/// The layers of its largest model, whose scores are scaled in another way.
const LARGEST: usize = 62;

/// The number by whose root scores are divided in Gemma 3: files leave it out.
pub fn score_scale(layers: usize, heads: Heads, hidden: usize) -> usize {
    match layers {
        LARGEST => hidden / heads.queries,
        _ => heads.width,
    }
}

/// Whether a layer of Gemma 3 sees a window only.
pub fn is_sliding(layer: usize) -> bool {
    !(layer + 1).is_multiple_of(GLOBAL)
}

fn gemma(
    metadata: &Metadata,
    heads: Heads,
    hidden: usize,
    config: &mut Map<String, Value>,
) -> Result<()> {
    let layers = metadata
        .same_size("gemma3.block_count")?
        .unwrap_or_default();
    let types = (0..layers).map(|layer| match is_sliding(layer) {
        true => "sliding_attention",
        false => "full_attention",
    });
    config.insert("layer_types".into(), types.collect());
    let scale = score_scale(layers, heads, hidden);
    config.insert("query_pre_attn_scalar".into(), scale.into());
    config.insert("attention_bias".into(), false.into());
    let cap = metadata.float("gemma3.final_logit_softcapping")?;
    config.insert("final_logit_softcapping".into(), cap.into());
    Ok(())
}

fn refuse_experts(kind: &Kind, metadata: &Metadata) -> Result<()> {
    let key = kind.key("expert_count");
    match metadata.size(&key)? {
        Some(count) if count > 0 => Err(metadata.error(
            &key,
            format!("a mixture of {count} experts is not supported"),
        )),
        _ => Ok(()),
    }
}

/// The rows of the embedding: what the model computes with, also where words were added.
fn vocab_size<'a>(
    kind: &Kind,
    metadata: &Metadata,
    mut tensors: impl Iterator<Item = &'a Entry>,
) -> Result<usize> {
    if let Some(table) = tensors.find(|tensor| tensor.name == "token_embd.weight") {
        return Ok(table.shape[0]);
    }
    let key = kind.key("vocab_size");
    metadata.require(&key, metadata.size(&key))
}
