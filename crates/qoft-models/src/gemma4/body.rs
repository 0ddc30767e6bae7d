//! Everything of the model below its output head.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::ops::{self, Traced};
use qoft_core::{Embedding, Linear, Norm, Result, Walk};

use super::block::{Block, BlockConfig};
use crate::any_body::AnyBody;
use crate::body::{Body, Span, Stream};
use crate::config::{ModelConfig, ModelNames};
use crate::loader::Loader;
use crate::norm::NormConfig;
use crate::spec::Blueprint;

/// A model, described.
#[derive(Debug)]
pub struct Gemma4Config {
    /// The blocks.
    pub blocks: Vec<BlockConfig>,
    /// The norms.
    pub norm: NormConfig,
    /// The token of the padding.
    pub pad_token_id: Option<usize>,
    /// The table of what each token adds in all blocks: entries, and the width for one block.
    pub per_layer: Option<[usize; 2]>,
}

impl Blueprint for Gemma4Config {
    fn build(&self, model: &ModelConfig, loader: &Loader) -> Result<AnyBody> {
        let width = model.hidden_size;
        let count = self.blocks.len();
        let table = loader.embedding(ModelNames::USUAL.tokens, [model.vocab_size, width])?;
        let block = |loader: &Loader, index: usize| Block::load(loader, &self.blocks[index]);
        let layers = loader.blocks("layers", count, block)?;
        let norm = loader.norm("norm", width, self.norm)?;
        let per_layer = self.per_layer;
        let all = per_layer.map(|[entries, each]| [entries, count * each, each]);
        let tokens = |[entries, all, _]: [usize; 3]| {
            let table = loader.embedding("embed_tokens_per_layer", [entries, all])?;
            Ok::<_, qoft_core::Error>(table.with_padding(self.pad_token_id))
        };
        let projection = |[_, all, _]: [usize; 3]| {
            loader.linear("per_layer_model_projection", [all, width], false)
        };
        let projection_norm =
            |[_, _, each]: [usize; 3]| loader.norm("per_layer_projection_norm", each, self.norm);
        Ok(AnyBody::new(Gemma4Model {
            embed_tokens: table.with_padding(self.pad_token_id),
            layers,
            norm,
            embed_tokens_per_layer: all.map(tokens).transpose()?,
            per_layer_model_projection: all.map(projection).transpose()?,
            per_layer_projection_norm: all.map(projection_norm).transpose()?,
        }))
    }
}

/// Everything below the output head.
#[derive(Module, Debug, Walk)]
struct Gemma4Model {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: Norm,
    embed_tokens_per_layer: Option<Embedding>,
    per_layer_model_projection: Option<Linear>,
    per_layer_projection_norm: Option<Norm>,
}

/// The root of a width, as a factor of embeddings.
fn root(width: usize) -> f64 {
    f64::from((width as f64).sqrt() as f32)
}

impl Gemma4Model {
    /// What tokens add in all blocks, `[batch, time, blocks · width]`, from the ids and the embeddings.
    fn per_layer(&self, input_ids: Tensor<2, Int>, embedded: &Tensor<3>) -> Option<Tensor<3>> {
        let (Some(table), Some(projection), Some(norm)) = (
            &self.embed_tokens_per_layer,
            &self.per_layer_model_projection,
            &self.per_layer_projection_norm,
        ) else {
            return None;
        };
        let [batch, time, hidden] = embedded.dims();
        let width = norm.weight().dims()[0];
        let told = table.forward(input_ids) * root(width);
        let all = told.dims()[2];
        let x = projection.forward(embedded.clone()) * (hidden as f64).powf(-0.5);
        let x = norm.forward(x.reshape([batch * time * (all / width), width]));
        let (x, told) = ops::lifted(x.into_tensor().reshape([batch, time, all]), told);
        Some((x + told) * std::f64::consts::FRAC_1_SQRT_2)
    }
}

impl Body for Gemma4Model {
    type Block = Block;

    fn embed(&self, input_ids: Tensor<2, Int>, span: &Span) -> Stream {
        self.embed_with(input_ids, span, &|embedded| embedded)
    }

    // What tokens add in all blocks is made from embeddings with noise, too.
    fn embed_with(
        &self,
        input_ids: Tensor<2, Int>,
        _span: &Span,
        noise: &dyn Fn(Tensor<3>) -> Tensor<3>,
    ) -> Stream {
        let x = self.embed_tokens.forward(input_ids.clone());
        let x = {
            let width = x.dims()[2];
            noise(x * root(width))
        };
        let carried = self.per_layer(input_ids, &x);
        Stream::new(x).carrying(carried.into_iter().collect())
    }

    fn blocks(&self) -> &[Block] {
        &self.layers
    }

    fn finish(&self, stream: Stream) -> Traced<3> {
        self.norm.forward(stream.hidden)
    }

    fn packs(&self) -> bool {
        true
    }

    fn tokens(&self) -> &Embedding {
        &self.embed_tokens
    }
}
