//! Llama and its relatives: rotary positions, root-mean-square norms, gated feed-forward layers.

mod attention;
mod block;
mod config;
mod layers;
mod mlp;
mod rope;
mod rope_config;

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::kernels::ops::Rope;
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Norm, Result, Walk};

use crate::config::ModelConfig;
use crate::loader::Loader;
use crate::stack::Stack;
use block::Block;
pub use config::{DecoderConfig, Family};
pub use layers::LayerConfig;
use rope::RopeTables;
pub use rope_config::{RopeConfig, RopeScaling};

/// Everything below the output head.
#[derive(Module, Debug, Walk)]
pub struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: Norm,
    #[module(skip)]
    #[walk(skip)]
    rope: RopeTables,
    /// Multiplies the embeddings.
    #[module(skip)]
    #[walk(skip)]
    multiplier: f64,
}

impl Decoder {
    /// Module path in the model.
    pub const PATH: &'static str = "model";

    /// Loads all layers; `progress` is called after each block.
    pub fn load(
        loader: &Loader,
        model: &ModelConfig,
        config: &DecoderConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let (path, width) = (Self::PATH, model.hidden_size);
        let table = [model.vocab_size, width];
        let embed_tokens = loader.embedding(&format!("{path}.embed_tokens"), table)?;
        let eps = config.rms_norm_eps;
        // The count is the file's word: memory is only taken for layers that are there.
        let (mut layers, total) = (Vec::new(), model.num_hidden_layers);
        for layer in 0..total {
            let path = format!("{path}.layers.{layer}");
            layers.push(Block::load(loader, width, config, &path, layer)?);
            // What was packed anew is in memory of its own now.
            loader.checkpoint.release();
            progress(layer + 1, total);
        }
        Ok(Self {
            embed_tokens: embed_tokens.with_padding(config.pad_token_id),
            layers,
            norm: loader.root_mean_square(&format!("{path}.norm"), width, eps)?,
            rope: RopeTables::new(config.rope.clone()),
            multiplier: config.multipliers.embedding,
        })
    }
}

impl Stack for Decoder {
    type Block = Block;

    fn blocks(&self) -> &[Block] {
        &self.layers
    }

    fn shared(&self, positions: Range<usize>) -> Rope {
        self.rope.table(positions)
    }

    fn embed(&self, input_ids: Tensor<2, Int>, _start: usize) -> Tensor<3> {
        let x = self.embed_tokens.forward(input_ids);
        match self.multiplier {
            1.0 => x,
            multiplier => x * multiplier,
        }
    }

    fn norm(&self, x: Tensor<3>) -> Traced<3> {
        self.norm.forward(x)
    }

    fn embedding(&self) -> &Embedding {
        &self.embed_tokens
    }
}
