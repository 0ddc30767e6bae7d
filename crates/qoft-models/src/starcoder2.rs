//! `starcoder2`: norms of mean and variance, feed-forward layers without a gate, biases everywhere; perhaps a
//! sliding window.

use std::sync::Arc;

use qoft_core::Result;
use qoft_core::kernels::ops::Activation;
use serde_json::json;

use crate::activation::activation;
use crate::architecture::Architecture;
use crate::config::{ModelConfig, ModelNames, SizeKeys};
use crate::decoder::{
    AttentionConfig, BlockConfig, DecoderConfig, MlpConfig, MlpInput, MlpNames, RopeConfig,
    RopeDefaults, RopeTables,
};
use crate::json::Object;
use crate::norm::{NormConfig, NormKind};
use crate::padding::pad_token_id;
use crate::registry::ArchitectureRegistration;
use crate::spec::ModelSpec;

struct Starcoder2;

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&Starcoder2);

crate::register_architecture!(REGISTRATION);

impl Architecture for Starcoder2 {
    fn name(&self) -> &'static str {
        "starcoder2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["starcoder2"]
    }

    fn describe(&self, json: Object) -> Result<ModelSpec> {
        // As in transformers.
        let filled = json.over(json!({"max_position_embeddings": 4096}));
        let json = json.with_value(&filled);
        json.warn_of_dropout(&["attention_dropout", "residual_dropout", "embedding_dropout"])?;
        let mut model = ModelConfig::read(json, &SizeKeys::USUAL)?;
        model.tie_word_embeddings = json.get("tie_word_embeddings")?.unwrap_or(true);
        let eps = json.positive("norm_epsilon")?.unwrap_or(1e-5) as f32;
        let norm = NormConfig::new(eps).of_kind(NormKind::Layer { bias: true });
        let bias = json.get("use_bias")?.unwrap_or(true);

        let read = AttentionConfig::read(json, model.hidden_size, None)?;
        let positions = model.max_position_embeddings;
        let rope = RopeConfig::read(json, &RopeDefaults::USUAL, read.head_dim, positions)?;
        let attention = AttentionConfig {
            input_bias: bias,
            output_bias: bias,
            rope: Some(Arc::new(RopeTables::new(rope))),
            window: json.size("sliding_window")?,
            ..read
        };
        let mlp = MlpConfig {
            input: MlpInput::Plain,
            names: MlpNames::plain("c_fc", "c_proj"),
            bias,
            activation: activation(json, "hidden_act")?.unwrap_or(Activation::GeluTanh),
            ..MlpConfig::new([json.require_size("intermediate_size")?, model.hidden_size])
        };
        let block = BlockConfig::new(attention, mlp, norm);
        let decoder = DecoderConfig {
            pad_token_id: pad_token_id(json, None, model.vocab_size)?,
            ..DecoderConfig::new(vec![block; model.num_hidden_layers], norm)
        };
        ModelSpec::new(model, ModelNames::USUAL, decoder)
    }
}
