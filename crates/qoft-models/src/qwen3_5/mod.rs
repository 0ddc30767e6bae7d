//! Qwen 3.5: gated delta nets in most layers, attention with gates in the others.

mod dense;
mod mixture;

use std::sync::Arc;

use qoft_core::Result;
use qoft_core::kernels::ops::{Activation, GatedDeltaRule};
use serde_json::{Value, json};

use crate::activation::activation;
use crate::architecture::Architecture;
use crate::config::{ModelConfig, ModelNames, SizeKeys};
use crate::decoder::{
    AttentionConfig, BlockConfig, DecoderConfig, DeltaNetConfig, FeedForwardConfig, HeadNorm,
    MixerConfig, RopeConfig, RopeDefaults, RopeTables,
};
use crate::json::Object;
use crate::layer_types;
use crate::norm::NormConfig;
use crate::padding::pad_token_id;
use crate::spec::ModelSpec;

/// A model type of the family.
struct Qwen35 {
    /// Its one `model_type`.
    model_types: &'static [&'static str],
    names: ModelNames,
    /// The object that describes the text part, where a file has others beside it, and the same with a
    /// dot behind it.
    part: Option<(&'static str, &'static str)>,
    /// What transformers' configuration class has for keys that a file leaves out.
    defaults: fn() -> Value,
    /// The feed-forward part of all layers.
    feed_forward: fn(Object, &ModelConfig, Activation) -> Result<FeedForwardConfig>,
}

/// The text part alone. What transformers saves of it has the names of the whole model.
const TEXT: ModelNames = ModelNames::USUAL.with_older_paths(&[("model.language_model", "model")]);

/// The whole model, of which pictures are not read.
const PART: ModelNames = ModelNames::TEXT_PART
    .with_other_parts(&["model.visual"])
    .with_base_alone("model");

/// The text part of the whole model.
const TEXT_CONFIG: (&str, &str) = ("text_config", "text_config.");

impl Architecture for Qwen35 {
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
        let mut model = ModelConfig::read(json, &SizeKeys::USUAL)?;
        model.model_type = root.require("model_type")?;
        if let Some(tied) = root.get("tie_word_embeddings")? {
            model.tie_word_embeddings = tied;
        }

        let norm = NormConfig::new(json.require_positive("rms_norm_eps")? as f32);
        let activation = activation(json, "hidden_act")?;
        let activation = activation.ok_or_else(|| json.error("hidden_act", "is missing"))?;
        let feed_forward = (self.feed_forward)(json, &model, activation)?;
        let attention: MixerConfig = attention(json, &model, norm.with_unit_offset())?.into();
        let delta_net: MixerConfig = delta_net(json, &model, norm, activation)?.into();
        let blocks = is_attention(json, model.num_hidden_layers)?;
        let blocks = blocks.into_iter().map(|is_attention| {
            let mixer = if is_attention { &attention } else { &delta_net };
            BlockConfig::new(mixer.clone(), feed_forward.clone(), norm.with_unit_offset())
        });
        let decoder = DecoderConfig {
            pad_token_id: pad_token_id(json, None, model.vocab_size)?,
            ..DecoderConfig::new(blocks.collect(), norm.with_unit_offset())
        };
        ModelSpec::new(model, self.names, decoder)
    }
}

/// Whether each layer has attention: as `layer_types` says, or every fourth one.
fn is_attention(json: Object, layers: usize) -> Result<Vec<bool>> {
    let interval = json.size("full_attention_interval")?.unwrap_or(4);
    let known = [("linear_attention", false), ("full_attention", true)];
    layer_types::kinds(json, layers, &known, |layer| {
        (layer + 1).is_multiple_of(interval)
    })
}

fn attention(json: Object, model: &ModelConfig, norm: NormConfig) -> Result<AttentionConfig> {
    let read = AttentionConfig::read(json, model.hidden_size, None)?;
    let bias = json.flag("attention_bias")?;
    // Pictures have positions of three axes; in a text all of them are the same.
    let rope = RopeDefaults::USUAL.with_partial_rotary_factor(0.25);
    let rope = RopeConfig::read(json, &rope, read.head_dim, model.max_position_embeddings)?;
    Ok(AttentionConfig {
        input_bias: bias,
        output_bias: bias,
        output_gate: true,
        head_norm: HeadNorm::Each,
        norm,
        rope: Some(Arc::new(RopeTables::new(rope))),
        ..read
    })
}

fn delta_net(
    json: Object,
    model: &ModelConfig,
    norm: NormConfig,
    activation: Activation,
) -> Result<DeltaNetConfig> {
    let heads = |count: &str, width: &str| {
        let heads = [json.require_size(count)?, json.require_size(width)?];
        let all = heads[0].checked_mul(heads[1]);
        match all.filter(|&all| all <= WIDEST) {
            Some(_) => Ok(heads),
            None => Err(json.error(width, format!("more than {WIDEST} features in all heads"))),
        }
    };
    let keys = heads("linear_num_key_heads", "linear_key_head_dim")?;
    let values = heads("linear_num_value_heads", "linear_value_head_dim")?;
    if !values[0].is_multiple_of(keys[0]) {
        let reason = format!("{} is no multiple of {} heads of keys", values[0], keys[0]);
        return Err(json.error("linear_num_value_heads", reason));
    }
    let convolution = json.require_size("linear_conv_kernel_dim")?;
    let rule = GatedDeltaRule::new(keys, values);
    Ok(DeltaNetConfig {
        activation,
        ..DeltaNetConfig::new(model.hidden_size, rule, convolution, norm)
    })
}

/// More features than the heads of any model have together.
const WIDEST: usize = 1 << 24;

/// These keys, and those that all model types have, with what transformers' configuration classes have for
/// them.
fn over_common(own: Value) -> Value {
    let common = json!({
        "vocab_size": 248_320,
        "hidden_act": "silu",
        "num_attention_heads": 16,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "head_dim": 256,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    });
    Object::root(&own).over(common)
}
