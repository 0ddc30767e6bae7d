//! Decoders with rotary positions, which most model types are, and the parts that they are made of.
//!
//! Each part has a description with resolved options, and no part asks which model it is in.

mod attention;
mod balance;
mod block;
mod delta_net;
mod expert;
mod feed_forward;
mod mixer;
mod mixture;
mod mlp;
mod query_growth;
mod rope;
mod rope_config;
mod router;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Norm, Result, Walk};

use crate::any_body::AnyBody;
use crate::body::{Body, Span, Stream};
use crate::config::{ModelConfig, ModelNames};
use crate::loader::Loader;
use crate::norm::NormConfig;
use crate::spec::Blueprint;

use balance::balance_loss;

pub use attention::{Attention, AttentionConfig, AttentionNames, HeadNorm, Projections};
pub use block::{Block, BlockConfig, FeedForwardName, NormPlacement};
pub use delta_net::{DeltaNet, DeltaNetCache, DeltaNetConfig};
pub use expert::{ExpertConfig, ExpertInput};
pub use feed_forward::{FeedForward, FeedForwardConfig};
pub use mixer::{MixerCache, MixerConfig};
pub use mixture::{Mixture, MixtureConfig, RouterName, SharedConfig};
pub use mlp::{Mlp, MlpConfig, MlpInput, MlpNames};
pub use query_growth::QueryGrowth;
pub use rope::RopeTables;
pub use rope_config::{RopeConfig, RopeDefaults, RopePairs, RopeScaling};
pub use router::{RouterConfig, Scores, SigmoidScores};

/// A decoder, described: everything below the output head.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DecoderConfig {
    /// The blocks, from the first one on.
    pub blocks: Vec<BlockConfig>,
    /// The last norm.
    pub norm: NormConfig,
    /// The token of the padding, whose row of the embedding table does not train.
    pub pad_token_id: Option<usize>,
    /// What embeddings are multiplied by.
    pub embedding_multiplier: f64,
    /// Whether that also multiplies the noise that a training adds to embeddings: transformers adds it to what
    /// the embedding module gives, which multiplies by itself in some models and not in others.
    pub multiplies_noise: bool,
}

impl DecoderConfig {
    /// A decoder of these blocks.
    pub fn new(blocks: Vec<BlockConfig>, norm: NormConfig) -> Self {
        Self {
            blocks,
            norm,
            pad_token_id: None,
            embedding_multiplier: 1.0,
            multiplies_noise: false,
        }
    }
}

impl Blueprint for DecoderConfig {
    fn build(&self, model: &ModelConfig, loader: &Loader) -> Result<AnyBody> {
        let width = model.hidden_size;
        let table = [model.vocab_size, width];
        let embed_tokens = loader.embedding(ModelNames::USUAL.tokens, table)?;
        let block = |loader: &Loader, index: usize| Block::load(loader, &self.blocks[index]);
        Ok(AnyBody::new(Decoder {
            embed_tokens: embed_tokens.with_padding(self.pad_token_id),
            layers: loader.blocks("layers", self.blocks.len(), block)?,
            norm: loader.norm("norm", width, self.norm)?,
            multiplier: self.embedding_multiplier,
            multiplies_noise: self.multiplies_noise,
        }))
    }
}

/// Everything below the output head.
#[derive(Module, Debug, Walk)]
struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: Norm,
    /// Multiplies the embeddings.
    #[module(skip)]
    #[walk(skip)]
    multiplier: f64,
    /// Whether noise is multiplied with them.
    #[module(skip)]
    #[walk(skip)]
    multiplies_noise: bool,
}

impl Decoder {
    fn multiplied(&self, embedded: Tensor<3>) -> Tensor<3> {
        match self.multiplier {
            1.0 => embedded,
            multiplier => embedded * multiplier,
        }
    }
}

impl Body for Decoder {
    type Block = Block;

    fn embed(&self, input_ids: Tensor<2, Int>, _span: &Span) -> Stream {
        Stream::new(self.multiplied(self.embed_tokens.forward(input_ids)))
    }

    fn embed_with(
        &self,
        input_ids: Tensor<2, Int>,
        _span: &Span,
        noise: &dyn Fn(Tensor<3>) -> Tensor<3>,
    ) -> Stream {
        let embedded = self.embed_tokens.forward(input_ids);
        Stream::new(match self.multiplies_noise {
            true => self.multiplied(noise(embedded)),
            false => noise(self.multiplied(embedded)),
        })
    }

    fn blocks(&self) -> &[Block] {
        &self.layers
    }

    fn finish(&self, stream: Stream) -> Traced<3> {
        self.norm.forward(stream.hidden)
    }

    fn auxiliary_loss(&self, stream: &Stream) -> Option<Tensor<1>> {
        stream.carried.first().map(balance_loss)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::{Device, TensorData};
    use qoft_core::kernels::{DenseWeight, FloatFormat};

    use super::*;

    /// As transformers' hook on the embedding module has it, before a multiplier of the model and behind one
    /// of the module.
    #[test]
    fn noise_is_multiplied_where_the_model_multiplies_embeddings() {
        let device = Device::flex();
        let table = FloatFormat::F32.to_bytes(&[1.0, 2.0, 3.0, 4.0]);
        let table = DenseWeight::new(table.into(), FloatFormat::F32, [2, 2]);
        for (multiplies_noise, expected) in [(true, [15.0f32, 20.0]), (false, [10.5, 14.0])] {
            let decoder = Decoder {
                embed_tokens: Embedding::new(Arc::new(table.clone())),
                layers: Vec::new(),
                norm: Norm::root_mean_square(Tensor::ones([2], &device), 1e-5),
                multiplier: 2.0,
                multiplies_noise,
            };
            let ids = Tensor::<2, Int>::from_data(TensorData::from([[1]]), &device);
            let noise = |x: Tensor<3>| x + Tensor::from_floats([[[4.5, 6.0]]], &device);
            let span = Span::new(0..1);
            let plain = decoder.embed(ids.clone(), &span).hidden;
            assert_eq!(plain.into_data(), TensorData::from([[[6.0f32, 8.0]]]));
            let noisy = decoder.embed_with(ids, &span, &noise).hidden;
            assert_eq!(noisy.into_data(), TensorData::from([[expected]]));
        }
    }
}
