//! The keys of `config.json` that are StarCoder2's own.

use std::sync::Arc;

use qoft_core::Result;
use qoft_core::kernels::ops::Activation;
use qoft_models::decoder::{AttentionConfig, RopeConfig, RopeDefaults, RopeTables};
use qoft_models::{ModelConfig, Object, activation, pad_token_id};

/// Everything below the output head, described.
#[derive(Debug, Clone)]
pub struct Starcoder2Config {
    /// The attention of all blocks.
    pub attention: AttentionConfig,
    /// Width inside the feed-forward layers.
    pub inner: usize,
    /// Activation of the feed-forward layers.
    pub activation: Activation,
    /// Whether linear layers have biases.
    pub bias: bool,
    /// Added to the variance in norms.
    pub eps: f32,
    /// The token of the padding, whose row of the embedding table does not train.
    pub pad_token_id: Option<usize>,
}

impl Starcoder2Config {
    /// Reads and checks the keys; what they leave out is as in transformers.
    pub fn read(json: Object, model: &ModelConfig) -> Result<Self> {
        json.warn_of_dropout(&["attention_dropout", "residual_dropout", "embedding_dropout"])?;
        let bias = json.get("use_bias")?.unwrap_or(true);
        let mut attention = AttentionConfig::read(json, model.hidden_size, None)?;
        attention.input_bias = bias;
        attention.output_bias = bias;
        attention.window = json.size("sliding_window")?;
        let (head_dim, positions) = (attention.head_dim, model.max_position_embeddings);
        let rope = RopeConfig::read(json, &RopeDefaults::USUAL, head_dim, positions)?;
        attention.rope = Some(Arc::new(RopeTables::new(rope)));
        Ok(Self {
            attention,
            inner: json.require_size("intermediate_size")?,
            activation: activation(json, "hidden_act")?.unwrap_or(Activation::GeluTanh),
            bias,
            eps: json.positive("norm_epsilon")?.unwrap_or(1e-5) as f32,
            pad_token_id: pad_token_id(json, None, model.vocab_size)?,
        })
    }
}
