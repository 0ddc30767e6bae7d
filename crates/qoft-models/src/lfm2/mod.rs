//! `lfm2`: short gated convolutions in most layers, attention in the others.

mod block;
mod inner_width;
mod short_convolution;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Norm, Result, Walk};
use serde_json::json;

use crate::any_body::AnyBody;
use crate::architecture::Architecture;
use crate::body::{Body, Span, Stream};
use crate::config::{ModelConfig, ModelNames, SizeKeys};
use crate::decoder::{
    AttentionConfig, AttentionNames, HeadNorm, MlpConfig, MlpNames, RopeConfig, RopeDefaults,
    RopeTables,
};
use crate::json::Object;
use crate::layer_types;
use crate::loader::Loader;
use crate::norm::NormConfig;
use crate::padding::pad_token_id;
use crate::registry::ArchitectureRegistration;
use crate::spec::{Blueprint, ModelSpec};

use block::{Block, Kind};
use inner_width::inner_width;

struct Lfm2;

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&Lfm2);

crate::register_architecture!(REGISTRATION);

impl Architecture for Lfm2 {
    fn name(&self) -> &'static str {
        "lfm2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["lfm2"]
    }

    fn describe(&self, json: Object) -> Result<ModelSpec> {
        let filled = json.over(defaults());
        let json = json.with_value(&filled);
        let mut model = ModelConfig::read(json, &SizeKeys::USUAL)?;
        if let Some(tied) = json.get("tie_embedding")? {
            model.tie_word_embeddings = tied;
        }
        let config = Lfm2Config::read(json, &model)?;
        ModelSpec::new(model, ModelNames::USUAL, config)
    }
}

/// What transformers' configuration class has for keys that a file leaves out.
fn defaults() -> serde_json::Value {
    json!({
        "vocab_size": 65_536,
        "hidden_size": 2560,
        "intermediate_size": 12_288,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 128_000,
        "norm_eps": 1e-5,
        "pad_token_id": 0,
        "tie_word_embeddings": true,
        "conv_L_cache": 3,
        "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": true,
    })
}

/// What files call the feed-forward layers.
const FEED_FORWARD: MlpNames = MlpNames {
    gate_proj: "w1",
    up_proj: "w3",
    down_proj: "w2",
    ..MlpNames::USUAL
};

/// A model, described.
#[derive(Debug)]
struct Lfm2Config {
    kinds: Vec<Kind>,
    attention: AttentionConfig,
    convolution: ConvolutionConfig,
    feed_forward: MlpConfig,
    norm: NormConfig,
    pad_token_id: Option<usize>,
}

/// Short convolutions, described.
#[derive(Debug, Clone, Copy)]
struct ConvolutionConfig {
    hidden: usize,
    /// Tokens that one output sees.
    width: usize,
    /// Whether all of its layers have biases.
    bias: bool,
}

impl Lfm2Config {
    fn read(json: Object, model: &ModelConfig) -> Result<Self> {
        let hidden = model.hidden_size;
        let norm = NormConfig::new(json.require_positive("norm_eps")? as f32);
        let read = AttentionConfig::read(json, hidden, None)?;
        let (head_dim, positions) = (read.head_dim, model.max_position_embeddings);
        let rope = RopeDefaults::USUAL.with_theta(1e6);
        let rope = RopeConfig::read(json, &rope, head_dim, positions)?;
        let names = AttentionNames {
            o_proj: "out_proj",
            ..AttentionNames::USUAL.with_norms("q_layernorm", "k_layernorm")
        };
        Ok(Self {
            kinds: kinds(json, model.num_hidden_layers)?,
            attention: AttentionConfig {
                names,
                head_norm: HeadNorm::Each,
                norm,
                rope: Some(Arc::new(RopeTables::new(rope))),
                ..read
            },
            convolution: ConvolutionConfig {
                hidden,
                width: json.require_size("conv_L_cache")?,
                bias: json.flag("conv_bias")?,
            },
            feed_forward: MlpConfig {
                names: FEED_FORWARD,
                ..MlpConfig::new([inner_width(json)?, hidden])
            },
            norm,
            pad_token_id: pad_token_id(json, None, model.vocab_size)?,
        })
    }
}

/// The kinds of the layers: `layer_types`, or attention where `full_attn_idxs` has it, or everywhere.
fn kinds(json: Object, layers: usize) -> Result<Vec<Kind>> {
    let attention: Option<Vec<i64>> = json.get("full_attn_idxs")?;
    let known = [
        ("full_attention", Kind::Attention),
        ("conv", Kind::Convolution),
    ];
    layer_types::kinds(json, layers, &known, |layer| match &attention {
        Some(attention) if !attention.contains(&(layer as i64)) => Kind::Convolution,
        _ => Kind::Attention,
    })
}

impl Blueprint for Lfm2Config {
    fn build(&self, model: &ModelConfig, loader: &Loader) -> Result<AnyBody> {
        let width = model.hidden_size;
        let table = loader.embedding(ModelNames::USUAL.tokens, [model.vocab_size, width])?;
        let block = |loader: &Loader, index: usize| Block::load(loader, self, self.kinds[index]);
        Ok(AnyBody::new(Lfm2Model {
            embed_tokens: table.with_padding(self.pad_token_id),
            layers: loader.blocks("layers", self.kinds.len(), block)?,
            embedding_norm: loader.norm("embedding_norm", width, self.norm)?,
        }))
    }
}

/// Everything below the output head. The last norm has its name from what it is for: an embedding.
#[derive(Module, Debug, Walk)]
struct Lfm2Model {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    embedding_norm: Norm,
}

impl Body for Lfm2Model {
    type Block = Block;

    fn embed(&self, input_ids: Tensor<2, Int>, _span: &Span) -> Stream {
        Stream::new(self.embed_tokens.forward(input_ids))
    }

    fn blocks(&self) -> &[Block] {
        &self.layers
    }

    fn finish(&self, stream: Stream) -> Traced<3> {
        self.embedding_norm.forward(stream.hidden)
    }

    fn packs(&self) -> bool {
        true
    }

    fn continues_several(&self) -> bool {
        true
    }

    fn tokens(&self) -> &Embedding {
        &self.embed_tokens
    }
}
