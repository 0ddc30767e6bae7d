//! What an architecture has to be: embeddings, blocks one after another, and a last norm.

use std::ops::Range;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Walk};

use crate::cache::{Cache, Caches, LayerCache};
use crate::in_training::{InTraining, with_noise};
use crate::positions::{Positions, Tokens};

/// What flows from block to block.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stream {
    /// The residual stream, `[batch, time, hidden]`.
    pub hidden: Tensor<3>,
    /// What else blocks hand on to later ones; gradients flow through it, too.
    pub carried: Vec<Tensor<3>>,
}

impl Stream {
    /// A stream that carries nothing else.
    pub fn new(hidden: Tensor<3>) -> Self {
        Self {
            hidden,
            carried: Vec::new(),
        }
    }

    /// The same that carries these tensors, too.
    #[must_use]
    pub fn carrying(self, carried: Vec<Tensor<3>>) -> Self {
        Self { carried, ..self }
    }

    /// All tensors, the residual stream first.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor<3>> {
        std::iter::once(&self.hidden).chain(&self.carried)
    }

    /// The same with other tensors in their places.
    pub(crate) fn map(self, mut f: impl FnMut(Tensor<3>) -> Tensor<3>) -> Self {
        Self {
            hidden: f(self.hidden),
            carried: self.carried.into_iter().map(f).collect(),
        }
    }
}

/// The part of a sequence whose tokens pass through a model at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// Their positions in the sequence, or in several ones that stand one after another in each row:
    /// a token sees nothing of another sequence.
    pub positions: Positions,
    /// Of all tokens of the batch, row by row, those that count in [`Body::auxiliary_loss`]: not the
    /// padding. `None` where nobody asks for that loss.
    pub counted: Option<Arc<Vec<bool>>>,
}

impl Span {
    /// Tokens at these positions; nobody asks for a loss of the blocks' own.
    pub fn new(positions: Range<usize>) -> Self {
        Self {
            positions: Positions::new(positions),
            counted: None,
        }
    }
}

/// One block of a model.
pub trait Block: Module + Walk + Sync + 'static {
    /// What it keeps of earlier tokens.
    type Cache: LayerCache;

    /// A cache of no tokens.
    fn new_cache(&self) -> Self::Cache;

    /// The block on a stream. With caches there is one for each sequence of [`Span::positions`], whose
    /// tokens follow those that it has seen. There is only one, unless [`Body::continues_several`].
    fn forward(&self, stream: Stream, span: &Span, caches: Caches<Self::Cache>) -> Stream;
}

/// Everything of a model below its output head.
pub trait Body: Module + Walk + Sync + 'static {
    /// Its blocks.
    type Block: Block;

    /// What the first block gets.
    fn embed(&self, input_ids: Tensor<2, Int>, span: &Span) -> Stream;

    /// The same with noise, where training wants some: `noise` adds it to the embeddings, before anything else
    /// is made of them. A body that only adds to its embeddings need not have this of its own.
    fn embed_with(
        &self,
        input_ids: Tensor<2, Int>,
        span: &Span,
        noise: &dyn Fn(Tensor<3>) -> Tensor<3>,
    ) -> Stream {
        let mut stream = self.embed(input_ids, span);
        stream.hidden = noise(stream.hidden);
        stream
    }

    /// The blocks, from the first one on.
    fn blocks(&self) -> &[Self::Block];

    /// What the output head gets: usually the last norm of the residual stream.
    fn finish(&self, stream: Stream) -> Traced<3>;

    /// A scalar that training may add to the loss, times a factor: how uneven routers distribute tokens, from
    /// what blocks carry where [`Span::counted`] asks for it.
    fn auxiliary_loss(&self, _stream: &Stream) -> Option<Tensor<1>> {
        None
    }

    /// Whether its blocks keep the sequences of a row apart, where [`Span::positions`] has several.
    fn packs(&self) -> bool {
        false
    }

    /// Whether its blocks can continue several sequences of a row at once, each with a cache of its own.
    fn continues_several(&self) -> bool {
        false
    }

    /// The table of the tokens, which is the output head's weight where these are tied.
    fn tokens(&self) -> &Embedding;
}

/// An empty cache for a body.
pub(crate) fn new_cache(body: &impl Body) -> Cache {
    let layers = body.blocks().iter().map(Block::new_cache);
    Cache::new(layers.collect())
}

/// What a body computes.
pub(crate) struct Outputs {
    /// Hidden states `[batch, time, hidden]` for the output head.
    pub hidden: Traced<3>,
    /// See [`Body::auxiliary_loss`].
    pub auxiliary: Option<Tensor<1>>,
}

impl Outputs {
    pub fn of<B: Body>(body: &B, stream: Stream) -> Self {
        Self {
            auxiliary: body.auxiliary_loss(&stream),
            hidden: body.finish(stream),
        }
    }
}

/// What a body computes from tokens.
pub(crate) fn outputs<B: Body>(
    body: &B,
    tokens: Tokens,
    cache: Option<&mut Cache>,
    training: InTraining,
) -> Outputs {
    if let Some(cache) = cache {
        let parts = vec![(cache, tokens.ids.dims()[1])];
        return Outputs::of(body, continued(body, tokens.ids, parts));
    }
    let span = Span {
        positions: tokens.positions(0),
        counted: training.counted,
    };
    let noise = |embedded| with_noise(embedded, training.noise);
    let mut stream = body.embed_with(tokens.ids, &span, &noise);
    for block in body.blocks() {
        stream = block.forward(stream, &span, None);
    }
    Outputs::of(body, stream)
}

/// What the blocks make of `ids`, `[batch, time]`: the next tokens of sequences that stand one after another in
/// the row, each with its cache and as many tokens as it says.
pub(crate) fn continued<B: Body>(
    body: &B,
    ids: Tensor<2, Int>,
    parts: Vec<(&mut Cache, usize)>,
) -> Stream {
    let positions = parts
        .iter()
        .map(|(cache, time)| cache.len()..cache.len() + time);
    let span = Span {
        positions: Positions::several(positions.collect()),
        counted: None,
    };
    let mut stream = body.embed(ids, &span);
    let mut layers: Vec<_> = Vec::new();
    for (cache, time) in parts {
        cache.advance(time);
        layers.push(cache.layers::<<B::Block as Block>::Cache>().iter_mut());
    }
    for block in body.blocks() {
        let mut caches: Vec<_> = layers.iter_mut().filter_map(Iterator::next).collect();
        stream = block.forward(stream, &span, Some(&mut caches));
    }
    stream
}
