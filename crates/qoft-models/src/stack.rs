//! What the architectures have in common: embeddings, blocks one after another, and a last norm.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Walk};

use crate::cache::{KvCache, LayerCache};

/// One block of a model.
pub trait Block: Module + Walk {
    /// What all blocks of a pass share, such as the table of the positions.
    type Shared;

    /// The block on `x` of `[batch, time, hidden]`.
    fn forward(
        &self,
        x: Tensor<3>,
        shared: &Self::Shared,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3>;
}

/// Everything below the output head.
pub trait Stack {
    /// Its blocks.
    type Block: Block;

    /// The blocks, from the first one on.
    fn blocks(&self) -> &[Self::Block];

    /// What the blocks share at some positions; the last one ends the sequence.
    fn shared(&self, positions: Range<usize>) -> <Self::Block as Block>::Shared;

    /// What the first block gets for ids from position `start` on.
    fn embed(&self, input_ids: Tensor<2, Int>, start: usize) -> Tensor<3>;

    /// The norm after the last block.
    fn norm(&self, x: Tensor<3>) -> Traced<3>;

    /// The table of the tokens.
    fn embedding(&self) -> &Embedding;

    /// Hidden states `[batch, time, hidden]` after the last norm.
    fn hidden(&self, input_ids: Tensor<2, Int>, mut cache: Option<&mut KvCache>) -> Traced<3> {
        let time = input_ids.dims()[1];
        let start = cache.as_ref().map_or(0, |cache| cache.len());
        let shared = self.shared(start..start + time);
        let mut x = self.embed(input_ids, start);
        for (index, block) in self.blocks().iter().enumerate() {
            let cache = cache.as_mut().map(|cache| cache.layer(index));
            x = block.forward(x, &shared, cache);
        }
        self.norm(x)
    }
}
