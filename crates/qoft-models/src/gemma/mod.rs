//! Gemma: decoders whose norms have a unit offset and whose embeddings are scaled.

mod gemma1;
mod gemma2;
mod gemma3;

use qoft_core::kernels::ops::{Activation, SoftCap};
use qoft_core::{Error, Result};
use serde_json::Value;

use crate::activation::activation;
use crate::architecture::Architecture;
use crate::config::{ModelConfig, ModelNames, SizeKeys};
use crate::decoder::{
    AttentionConfig, BlockConfig, DecoderConfig, HeadNorm, MlpConfig, NormPlacement, RopeConfig,
    RopeDefaults, RopeTables,
};
use crate::json::Object;
use crate::layer_types;
use crate::norm::NormConfig;
use crate::padding::pad_token_id;
use crate::spec::ModelSpec;

use std::sync::Arc;

/// A generation of the family.
struct Gemma {
    /// Its one `model_type`.
    model_types: &'static [&'static str],
    names: ModelNames,
    /// The object that describes the text part, where a file has others beside it.
    part: Option<Part>,
    /// What transformers' configuration class has for keys that a file leaves out.
    defaults: fn() -> Value,
    /// The activation of the feed-forward layers.
    activation: fn(Object) -> Result<Activation>,
    norms: NormPlacement,
    head_norm: HeadNorm,
    /// Whether `attn_logit_softcapping` bounds the scores.
    caps_scores: bool,
    /// Of layers that see everything, and of those that see a window.
    ropes: [RopeDefaults; 2],
    /// By the number of a layer, whether it sees a window only in files without `layer_types`.
    sliding: fn(Object) -> Result<Sliding>,
}

/// The key of an object, and that key with a dot behind it.
type Part = (&'static str, &'static str);

/// By the number of a layer, whether it sees a window only.
type Sliding = Box<dyn Fn(usize) -> bool>;

impl Architecture for Gemma {
    fn name(&self) -> &'static str {
        self.model_types[0]
    }

    fn model_types(&self) -> &'static [&'static str] {
        self.model_types
    }

    fn describe(&self, root: Object) -> Result<ModelSpec> {
        let part = match self.part {
            None => root,
            Some((key, prefix)) => root.require_object(key, prefix)?,
        };
        let filled = part.over((self.defaults)());
        let json = part.with_value(&filled);
        json.warn_of_dropout(&["attention_dropout"])?;
        let both_ways = json.get::<Value>("use_bidirectional_attention")?;
        if both_ways.is_some_and(|both_ways| both_ways != Value::Bool(false)) {
            let reason = "attention to later tokens is not supported";
            return Err(json.error("use_bidirectional_attention", reason));
        }
        let mut model = ModelConfig::read(json, &SizeKeys::USUAL)?;
        model.model_type = root.require("model_type")?;
        let tied = root.get("tie_word_embeddings")?;
        model.tie_word_embeddings = tied.unwrap_or(true);
        model.logits_soft_cap = soft_cap(json, "final_logit_softcapping")?;

        let norm = NormConfig::new(json.require_positive("rms_norm_eps")? as f32);
        let norm = norm.with_unit_offset();
        let blocks = self.blocks(json, &model, norm)?;
        let decoder = DecoderConfig {
            pad_token_id: pad_token_id(json, None, model.vocab_size)?,
            embedding_multiplier: f64::from((model.hidden_size as f64).sqrt() as f32),
            ..DecoderConfig::new(blocks, norm)
        };
        ModelSpec::new(model, self.names, decoder)
    }
}

impl Gemma {
    fn blocks(
        &self,
        json: Object,
        model: &ModelConfig,
        norm: NormConfig,
    ) -> Result<Vec<BlockConfig>> {
        let read = AttentionConfig::read(json, model.hidden_size, None)?;
        let scale = match json.positive("query_pre_attn_scalar")? {
            Some(scalar) => scalar.powf(-0.5),
            None => read.scale,
        };
        let soft_cap = match self.caps_scores {
            true => soft_cap(json, "attn_logit_softcapping")?,
            false => None,
        };
        let bias = json.flag("attention_bias")?;
        let attention = AttentionConfig {
            input_bias: bias,
            output_bias: bias,
            head_norm: self.head_norm,
            norm,
            scale,
            soft_cap,
            ..read
        };
        let mlp = MlpConfig {
            activation: (self.activation)(json)?,
            ..MlpConfig::new([json.require_size("intermediate_size")?, model.hidden_size])
        };
        let positions = model.max_position_embeddings;
        let tables = |defaults: &RopeDefaults| {
            let rope = RopeConfig::read(json, defaults, attention.head_dim, positions)?;
            Ok::<_, Error>(Arc::new(RopeTables::new(rope)))
        };
        let [full, local] = [tables(&self.ropes[0])?, tables(&self.ropes[1])?];
        let default = (self.sliding)(json)?;
        let sliding = layer_types::sliding(json, model.num_hidden_layers, default)?;
        let window = match sliding.contains(&true) {
            true => Some(json.require_size("sliding_window")?),
            false => None,
        };
        let blocks = sliding.into_iter().map(|sliding| {
            let attention = AttentionConfig {
                rope: Some(if sliding { &local } else { &full }.clone()),
                window: window.filter(|_| sliding),
                ..attention.clone()
            };
            BlockConfig {
                norms: self.norms,
                ..BlockConfig::new(attention, mlp.clone(), norm)
            }
        });
        Ok(blocks.collect())
    }
}

/// The bound under a key, if there is one.
fn soft_cap(json: Object, key: &str) -> Result<Option<SoftCap>> {
    let cap = json.positive(key)?;
    Ok(cap.map(|cap| SoftCap::new(cap as f32)))
}

/// The activation under `hidden_activation`.
fn hidden_activation(json: Object) -> Result<Activation> {
    let key = "hidden_activation";
    activation(json, key)?.ok_or_else(|| json.error(key, "is missing"))
}

/// Every n-th layer sees everything.
fn every(n: usize) -> Sliding {
    Box::new(move |layer| !(layer + 1).is_multiple_of(n))
}
