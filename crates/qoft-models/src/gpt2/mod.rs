//! GPT-2: learned positions, norms with biases, a fused projection.

mod attention;
mod block;
mod config;
mod mlp;

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Norm, Result, Walk};

use crate::config::ModelConfig;
use crate::loader::Loader;
use crate::stack::Stack;
use block::Block;
pub use config::Gpt2Config;
pub(crate) use config::MODEL_TYPE;

/// Everything below the output head.
#[derive(Module, Debug, Walk)]
pub struct Transformer {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: Norm,
}

impl Transformer {
    /// Module path in the model.
    pub const PATH: &'static str = "transformer";

    /// Loads all layers; `progress` is called after each block.
    pub fn load(
        loader: &Loader,
        model: &ModelConfig,
        config: &Gpt2Config,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let (path, width) = (Self::PATH, model.hidden_size);
        let wte = loader.embedding(&format!("{path}.wte"), [model.vocab_size, width])?;
        let positions = [model.max_position_embeddings, width];
        let wpe = loader.embedding(&format!("{path}.wpe"), positions)?;
        // The count is the file's word: memory is only taken for layers that are there.
        let (mut h, total) = (Vec::new(), model.num_hidden_layers);
        for layer in 0..total {
            let path = format!("{path}.h.{layer}");
            h.push(Block::load(loader, width, config, &path, layer)?);
            // What was packed anew is in memory of its own now.
            loader.checkpoint.release();
            progress(layer + 1, total);
        }
        let ln_f = loader.layer_norm(&format!("{path}.ln_f"), width, config.eps)?;
        Ok(Self { wte, wpe, h, ln_f })
    }
}

impl Stack for Transformer {
    type Block = Block;

    fn blocks(&self) -> &[Block] {
        &self.h
    }

    fn shared(&self, _positions: Range<usize>) {}

    fn embed(&self, input_ids: Tensor<2, Int>, start: usize) -> Tensor<3> {
        let (end, device) = (start + input_ids.dims()[1], input_ids.device());
        let positions = Tensor::<1, Int>::arange(start as i64..end as i64, &device);
        self.wte.forward(input_ids) + self.wpe.forward(positions.unsqueeze())
    }

    fn norm(&self, x: Tensor<3>) -> Traced<3> {
        self.ln_f.forward(x)
    }

    fn embedding(&self) -> &Embedding {
        &self.wte
    }
}
