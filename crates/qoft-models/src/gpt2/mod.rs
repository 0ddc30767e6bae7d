//! GPT-2: learned positions, norms with biases, a fused projection.

mod attention;
mod block;
mod config;
mod mlp;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Norm, Result, Walk};
use serde_json::json;

use crate::any_body::AnyBody;
use crate::architecture::Architecture;
use crate::body::{Body, Span, Stream};
use crate::config::{ModelConfig, ModelNames, SizeKeys};
use crate::json::Object;
use crate::loader::Loader;
use crate::registry::ArchitectureRegistration;
use crate::spec::{Blueprint, ModelSpec};
use block::Block;
use config::Gpt2Config;

/// `gpt2`.
struct Gpt2;

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&Gpt2);

crate::register_architecture!(REGISTRATION);

const NAMES: ModelNames = ModelNames::USUAL
    .with_base("transformer")
    .with_tokens("wte")
    .with_buffers(&[".attn.bias", ".attn.masked_bias"])
    .with_targets(&["c_attn"]);

const KEYS: SizeKeys = SizeKeys {
    hidden_size: "n_embd",
    num_hidden_layers: "n_layer",
    max_position_embeddings: "n_positions",
    ..SizeKeys::USUAL
};

impl Architecture for Gpt2 {
    fn name(&self) -> &'static str {
        "gpt2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["gpt2"]
    }

    fn describe(&self, json: Object) -> Result<ModelSpec> {
        // As in transformers.
        let filled = json.over(json!({"n_positions": 1024}));
        let json = json.with_value(&filled);
        let mut model = ModelConfig::read(json, &KEYS)?;
        model.longest_sequence = Some(model.max_position_embeddings);
        model.tie_word_embeddings = json.get("tie_word_embeddings")?.unwrap_or(true);
        let config = Gpt2Config::read(json, model.hidden_size, model.num_hidden_layers)?;
        ModelSpec::new(model, NAMES, config)
    }
}

impl Blueprint for Gpt2Config {
    fn build(&self, model: &ModelConfig, loader: &Loader) -> Result<AnyBody> {
        let width = model.hidden_size;
        let block = |loader: &Loader, index: usize| Block::load(loader, width, self, index);
        Ok(AnyBody::new(Transformer {
            wte: loader.embedding(NAMES.tokens, [model.vocab_size, width])?,
            wpe: loader.embedding("wpe", [model.max_position_embeddings, width])?,
            h: loader.blocks("h", model.num_hidden_layers, block)?,
            ln_f: loader.norm("ln_f", width, self.norm)?,
        }))
    }
}

/// Everything below the output head.
#[derive(Module, Debug, Walk)]
struct Transformer {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: Norm,
}

impl Body for Transformer {
    type Block = Block;

    fn embed(&self, input_ids: Tensor<2, Int>, span: &Span) -> Stream {
        let positions: Vec<i64> = span.positions.iter().map(|p| p as i64).collect();
        let positions = Tensor::<1, Int>::from_data(&positions[..], &input_ids.device());
        let positions = self.wpe.forward(positions.unsqueeze());
        Stream::new(self.wte.forward(input_ids) + positions)
    }

    fn blocks(&self) -> &[Block] {
        &self.h
    }

    fn finish(&self, stream: Stream) -> Traced<3> {
        self.ln_f.forward(stream.hidden)
    }

    fn packs(&self) -> bool {
        true
    }

    fn continues_several(&self) -> bool {
        true
    }

    fn tokens(&self) -> &Embedding {
        &self.wte
    }
}
