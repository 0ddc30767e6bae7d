//! Llama and its relatives: decoders of one kind, each model type with options of its own.

mod cohere2;
mod exaone4;
mod glm4;
mod glm4_moe;
mod gpt_oss;
mod granite;
mod granitemoehybrid;
mod hunyuan_v1_dense;
mod llama;
mod ministral3;
mod mistral;
mod mistral3;
mod mixtral;
pub mod mixtures;
mod olmo2;
mod olmo3;
mod olmoe;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod seed_oss;
mod smollm3;
mod windows;

use std::sync::Arc;

use qoft_core::{Error, Result};
use serde_json::json;

use crate::architecture::Architecture;
use crate::config::{ModelConfig, ModelNames, SizeKeys};
use crate::decoder::{
    AttentionConfig, AttentionNames, BlockConfig, DecoderConfig, FeedForwardConfig,
    FeedForwardName, HeadNorm, MlpConfig, MlpInput, NormPlacement, Projections, QueryGrowth,
    RopeConfig, RopeDefaults, RopeTables,
};
use crate::json::Object;
use crate::norm::{NormConfig, NormKind};
use crate::padding::pad_token_id;
use crate::spec::ModelSpec;

/// A model type: where it differs from others.
struct LlamaLike {
    /// Its one `model_type`.
    model_types: &'static [&'static str],
    names: ModelNames,
    /// Whether head and embedding table are one in files that do not say so.
    tied: bool,
    /// The token of the padding where `config.json` does not mention it.
    padding: Option<i64>,
    /// What the norms are.
    norm: NormKind,
    /// The key of what is added to the mean square or the variance in norms.
    eps_key: &'static str,
    /// The same in files that do not say so.
    eps: f64,
    /// The longest sequence in files that do not say so, as in transformers.
    positions: usize,
    /// Width of a head in files that do not say so, instead of an equal share.
    head_dim: Option<usize>,
    attention_names: AttentionNames,
    projections: Projections,
    /// How the inner projections of the feed-forward layers are stored.
    mlp_input: MlpInput,
    head_norm: HeadNorm,
    norms: NormPlacement,
    rope: RopeDefaults,
    /// The rotary positions of layers with a window, where they have some of their own.
    window_rope: Option<RopeDefaults>,
    biases: fn(Object) -> Result<Biases>,
    layers: fn(Object, usize) -> Result<Vec<LayerOptions>>,
    /// The feed-forward part of each layer, from those of a dense one.
    feed_forward: fn(Object, usize, MlpConfig) -> Result<Vec<FeedForwardConfig>>,
    feed_forward_name: FeedForwardName,
    /// The key of the bound of queries, keys and values.
    clip_key: Option<&'static str>,
    /// Whether heads have sinks.
    sinks: bool,
    query_growth: fn(Object) -> Result<Option<QueryGrowth>>,
    multipliers: fn(Object) -> Result<Multipliers>,
}

/// Which projections must come with a bias.
#[derive(Debug, Clone, Copy, Default)]
struct Biases {
    qkv: bool,
    output: bool,
    mlp: bool,
}

/// What differs between the layers of one model.
#[derive(Debug, Clone, Copy)]
struct LayerOptions {
    /// How many keys a query sees at most, itself included; `None`: all before it.
    window: Option<usize>,
    /// Whether queries and keys carry rotary positions.
    rope: bool,
}

/// Constants that multiply what flows through the model.
#[derive(Debug, Clone, Copy)]
struct Multipliers {
    embedding: f64,
    residual: f64,
    /// Of the scores; by default the root of the heads' width divides them.
    attention: Option<f64>,
    logits: f64,
}

impl Multipliers {
    const NONE: Self = Self {
        embedding: 1.0,
        residual: 1.0,
        attention: None,
        logits: 1.0,
    };
}

impl LlamaLike {
    /// What most of them have.
    const fn new(model_types: &'static [&'static str]) -> Self {
        Self {
            model_types,
            names: ModelNames::USUAL,
            tied: false,
            padding: None,
            norm: NormKind::RootMeanSquare,
            eps_key: "rms_norm_eps",
            eps: 1e-6,
            positions: 2048,
            head_dim: None,
            attention_names: AttentionNames::USUAL,
            projections: Projections::Single,
            mlp_input: MlpInput::Gated,
            head_norm: HeadNorm::Without,
            norms: NormPlacement::Before,
            rope: RopeDefaults::USUAL,
            window_rope: None,
            biases: no_biases,
            layers: windows::none,
            feed_forward: |_, layers, dense| Ok(vec![dense.into(); layers]),
            feed_forward_name: FeedForwardName::Mlp,
            clip_key: None,
            sinks: false,
            query_growth: |_| Ok(None),
            multipliers: no_multipliers,
        }
    }

    fn attention(
        &self,
        json: Object,
        model: &ModelConfig,
        norm: NormConfig,
    ) -> Result<AttentionConfig> {
        let attention = AttentionConfig::read(json, model.hidden_size, self.head_dim)?;
        let scale = (self.multipliers)(json)?.attention;
        let biases = (self.biases)(json)?;
        let clip = self.clip_key.map(|key| json.positive(key)).transpose()?;
        Ok(AttentionConfig {
            names: self.attention_names,
            projections: self.projections,
            input_bias: biases.qkv,
            output_bias: biases.output,
            head_norm: self.head_norm,
            norm,
            scale: scale.unwrap_or(attention.scale),
            clip: clip.flatten(),
            query_growth: (self.query_growth)(json)?,
            sinks: self.sinks,
            ..attention
        })
    }

    /// The model of `json`, under these names in that of the whole file, `root`.
    fn describe_part(&self, root: Object, json: Object, names: ModelNames) -> Result<ModelSpec> {
        let filled = json.over(json!({"max_position_embeddings": self.positions}));
        let json = json.with_value(&filled);
        json.choice("hidden_act", &[("silu", ()), ("swish", ())])?;
        json.warn_of_dropout(&DROPOUT)?;
        let multipliers = (self.multipliers)(json)?;
        let mut model = ModelConfig::read(json, &SizeKeys::USUAL)?;
        model.model_type = root.require("model_type")?;
        let tied = root.get("tie_word_embeddings")?;
        model.tie_word_embeddings = tied.unwrap_or(self.tied);
        model.logits_multiplier = multipliers.logits;

        let eps = json.positive(self.eps_key)?.unwrap_or(self.eps) as f32;
        let norm = NormConfig::new(eps).of_kind(self.norm);
        let attention = self.attention(json, &model, norm)?;
        let mlp = MlpConfig {
            input: self.mlp_input,
            bias: (self.biases)(json)?.mlp,
            ..MlpConfig::new([json.require_size("intermediate_size")?, model.hidden_size])
        };
        let positions = model.max_position_embeddings;
        let tables = |defaults: &RopeDefaults| {
            let rope = RopeConfig::read(json, defaults, attention.head_dim, positions)?;
            Ok::<_, Error>(Arc::new(RopeTables::new(rope)))
        };
        let rope = tables(&self.rope)?;
        let own = self.window_rope.as_ref().map(tables).transpose()?;
        let window_rope = own.unwrap_or_else(|| rope.clone());
        let layers = (self.layers)(json, model.num_hidden_layers)?;
        let feed_forward = (self.feed_forward)(json, model.num_hidden_layers, mlp)?;
        let blocks = layers.into_iter().zip(feed_forward);
        let blocks = blocks.map(|(layer, feed_forward)| {
            let rope = if layer.window.is_some() {
                &window_rope
            } else {
                &rope
            };
            let attention = AttentionConfig {
                rope: layer.rope.then(|| rope.clone()),
                window: layer.window,
                ..attention.clone()
            };
            BlockConfig {
                norms: self.norms,
                residual: multipliers.residual,
                feed_forward_name: self.feed_forward_name,
                ..BlockConfig::new(attention, feed_forward, norm)
            }
        });
        let decoder = DecoderConfig {
            pad_token_id: pad_token_id(json, self.padding, model.vocab_size)?,
            embedding_multiplier: multipliers.embedding,
            multiplies_noise: true,
            ..DecoderConfig::new(blocks.collect(), norm)
        };
        ModelSpec::new(model, names, decoder)
    }
}

impl Architecture for LlamaLike {
    fn name(&self) -> &'static str {
        self.model_types[0]
    }

    fn model_types(&self) -> &'static [&'static str] {
        self.model_types
    }

    fn describe(&self, json: Object) -> Result<ModelSpec> {
        self.describe_part(json, json, self.names)
    }
}

/// The keys of rates of dropout.
const DROPOUT: [&str; 4] = [
    "attention_dropout",
    "residual_dropout",
    "resid_pdrop",
    "embd_pdrop",
];

fn no_biases(_json: Object) -> Result<Biases> {
    Ok(Biases::default())
}

/// Biases as `attention_bias` asks for them.
fn attention_biases(json: Object) -> Result<Biases> {
    let attention = json.flag("attention_bias")?;
    Ok(Biases {
        qkv: attention,
        output: attention,
        mlp: false,
    })
}

/// Biases as `attention_bias` and `mlp_bias` ask for them.
fn all_biases(json: Object) -> Result<Biases> {
    Ok(Biases {
        mlp: json.flag("mlp_bias")?,
        ..attention_biases(json)?
    })
}

fn no_multipliers(_json: Object) -> Result<Multipliers> {
    Ok(Multipliers::NONE)
}
