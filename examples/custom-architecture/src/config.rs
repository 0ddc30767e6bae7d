//! The keys of `config.json` that are StableLM's own.

use std::sync::Arc;

use qoft_core::Result;
use qoft_core::kernels::ops::Activation;
use qoft_models::decoder::{AttentionConfig, RopeConfig, RopeDefaults, RopeTables};
use qoft_models::{ModelConfig, NormConfig, NormKind, Object, activation, pad_token_id};

/// Everything below the output head, described.
#[derive(Debug, Clone)]
pub struct StableLmConfig {
    /// The attention of all blocks.
    pub attention: AttentionConfig,
    /// Width inside the feed-forward layers.
    pub inner: usize,
    /// Activation of the feed-forward layers.
    pub activation: Activation,
    /// The norms.
    pub norm: NormConfig,
    /// Whether the feed-forward layers read what the attention reads.
    pub parallel: bool,
    /// The token of the padding, whose row of the embedding table does not train.
    pub pad_token_id: Option<usize>,
}

impl StableLmConfig {
    /// Reads and checks the keys; what they leave out is as in transformers.
    pub fn read(json: Object, model: &ModelConfig) -> Result<Self> {
        json.warn_of_dropout(&["attention_dropout", "hidden_dropout"])?;
        if json.flag("qk_layernorm")? {
            return Err(json.error("qk_layernorm", "norms on heads are not supported"));
        }
        let mut attention = AttentionConfig::read(json, model.hidden_size, None)?;
        attention.input_bias = json.flag("use_qkv_bias")?;
        let (head_dim, positions) = (attention.head_dim, model.max_position_embeddings);
        let rope = RopeDefaults::USUAL.with_partial_rotary_factor(0.25);
        let rope = RopeConfig::read(json, &rope, head_dim, positions)?;
        attention.rope = Some(Arc::new(RopeTables::new(rope)));
        let eps = json.positive("layer_norm_eps")?.unwrap_or(1e-5) as f32;
        Ok(Self {
            attention,
            inner: json.require_size("intermediate_size")?,
            activation: activation(json, "hidden_act")?.unwrap_or(Activation::Silu),
            norm: NormConfig::new(eps).of_kind(NormKind::Layer { bias: true }),
            parallel: json.flag("use_parallel_residual")?,
            pad_token_id: pad_token_id(json, None, model.vocab_size)?,
        })
    }
}
