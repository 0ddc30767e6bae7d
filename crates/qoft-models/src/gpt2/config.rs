//! GPT-2's keys of `config.json`.

use qoft_core::Result;
use qoft_core::kernels::ops::Activation;

use crate::config::{Architecture, ModelConfig, block_count, warn_of_dropout};
use crate::json::Object;

/// `model_type` of these models.
pub const MODEL_TYPE: &str = "gpt2";

/// What only GPT-2 has.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2Config {
    /// Heads of the attention; they divide the width of the residual stream.
    pub heads: usize,
    /// Width inside the feed-forward layers.
    pub inner: usize,
    /// Activation of the feed-forward layers.
    pub activation: Activation,
    /// Added to the variance in norms.
    pub eps: f32,
    /// Whether scores are divided by the root of the heads' width.
    pub scale_attn_weights: bool,
    /// Whether scores are divided by the number of the layer, from 1 on.
    pub scale_attn_by_inverse_layer_idx: bool,
}

impl Gpt2Config {
    /// Reads and checks a `config.json` of `model_type` `gpt2`.
    pub(crate) fn parse(json: Object) -> Result<ModelConfig> {
        if json.flag("add_cross_attention")? {
            let reason = "layers that attend to an encoder are not supported";
            return Err(json.error("add_cross_attention", reason));
        }
        warn_of_dropout(json, &["attn_pdrop", "resid_pdrop", "embd_pdrop"])?;
        let (hidden_size, heads) = (json.require_size("n_embd")?, json.require_size("n_head")?);
        if !hidden_size.is_multiple_of(heads) {
            let reason = format!("{hidden_size} is no multiple of {heads} heads");
            return Err(json.error("n_embd", reason));
        }
        let scale = json.get("scale_attn_weights")?;
        Ok(ModelConfig {
            model_type: MODEL_TYPE.to_owned(),
            vocab_size: json.require_size("vocab_size")?,
            hidden_size,
            num_hidden_layers: block_count(json, "n_layer")?,
            max_position_embeddings: json.require_size("n_positions")?,
            tie_word_embeddings: json.get("tie_word_embeddings")?.unwrap_or(true),
            architecture: Architecture::Gpt2(Self {
                heads,
                inner: json.size("n_inner")?.unwrap_or(4 * hidden_size),
                activation: activation(json)?,
                eps: json.positive("layer_norm_epsilon")?.unwrap_or(1e-5) as f32,
                scale_attn_weights: scale.unwrap_or(true),
                // `reorder_and_upcast_attn` needs nothing: scores are computed in f32 anyway.
                scale_attn_by_inverse_layer_idx: json.flag("scale_attn_by_inverse_layer_idx")?,
            }),
        })
    }

    /// What the scores of layer `layer`, from 0 on, are multiplied by.
    pub(crate) fn attention_scale(&self, head_dim: usize, layer: usize) -> f64 {
        let mut scale = 1.0;
        if self.scale_attn_weights {
            scale /= (head_dim as f64).sqrt();
        }
        if self.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f64;
        }
        scale
    }
}

/// `activation_function`, with transformers' names.
fn activation(json: Object) -> Result<Activation> {
    let key = "activation_function";
    match json.get::<String>(key)?.as_deref() {
        None | Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
        Some("gelu") => Ok(Activation::Gelu),
        Some("relu") => Ok(Activation::Relu),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("tanh") => Ok(Activation::Tanh),
        Some(other) => {
            let known = "gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu, swish, tanh";
            let reason = format!("`{other}` is not supported; supported are {known}");
            Err(json.error(key, reason))
        }
    }
}
