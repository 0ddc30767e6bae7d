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
}

impl DecoderConfig {
    /// A decoder of these blocks.
    pub fn new(blocks: Vec<BlockConfig>, norm: NormConfig) -> Self {
        Self {
            blocks,
            norm,
            pad_token_id: None,
            embedding_multiplier: 1.0,
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
}

impl Body for Decoder {
    type Block = Block;

    fn embed(&self, input_ids: Tensor<2, Int>, _span: &Span) -> Stream {
        let x = self.embed_tokens.forward(input_ids);
        Stream::new(match self.multiplier {
            1.0 => x,
            multiplier => x * multiplier,
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
