//! Everything below the output head.

use qoft_core::burn::module::Module;
use qoft_core::burn::tensor::{Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Norm, Result, Walk, burn};
use qoft_models::{AnyBody, Blueprint, Body, Loader, ModelConfig, Span, Stream};

use crate::block::Block;
use crate::config::StableLmConfig;

/// Embeddings, blocks and the last norm. Fields have the names of transformers' modules.
#[derive(Module, Debug, Walk)]
struct StableLmModel {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: Norm,
}

impl Blueprint for StableLmConfig {
    fn build(&self, model: &ModelConfig, loader: &Loader) -> Result<AnyBody> {
        let (width, count) = (model.hidden_size, model.num_hidden_layers);
        let table = loader.embedding("embed_tokens", [model.vocab_size, width])?;
        Ok(AnyBody::new(StableLmModel {
            embed_tokens: table.with_padding(self.pad_token_id),
            layers: loader.blocks("layers", count, |loader, _| Block::load(loader, self))?,
            norm: loader.norm("norm", width, self.norm)?,
        }))
    }
}

impl Body for StableLmModel {
    type Block = Block;

    fn embed(&self, input_ids: Tensor<2, Int>, _span: &Span) -> Stream {
        Stream::new(self.embed_tokens.forward(input_ids))
    }

    fn blocks(&self) -> &[Block] {
        &self.layers
    }

    fn finish(&self, stream: Stream) -> Traced<3> {
        self.norm.forward(stream.hidden)
    }

    fn continues_several(&self) -> bool {
        true
    }

    fn tokens(&self) -> &Embedding {
        &self.embed_tokens
    }
}
