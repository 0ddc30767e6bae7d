//! A block: attention or a short convolution, and feed-forward layers.

use burn::module::Module;
use qoft_core::{Norm, Result, Walk};

use super::Lfm2Config;
use super::short_convolution::ShortConvolution;
use crate::body::{self, Span, Stream};
use crate::cache::Caches;
use crate::decoder::{Attention, Mlp};
use crate::key_values::KeyValues;
use crate::last_inputs::LastInputs;
use crate::loader::Loader;

/// What mixes tokens in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Attention.
    Attention,
    /// A short convolution.
    Convolution,
}

/// One block of the model; it has attention or a convolution.
#[derive(Module, Debug, Walk)]
pub struct Block {
    self_attn: Option<Attention>,
    conv: Option<ShortConvolution>,
    feed_forward: Mlp,
    operator_norm: Norm,
    ffn_norm: Norm,
}

/// What a block keeps of earlier tokens.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one for each block")]
pub enum Kept {
    /// Of attention.
    KeyValues(KeyValues),
    /// Of a convolution.
    Inputs(LastInputs),
}

impl Block {
    /// Makes the layers.
    pub fn load(loader: &Loader, config: &Lfm2Config, kind: Kind) -> Result<Self> {
        let hidden = config.attention.hidden;
        let attention = || Attention::load(&loader.below("self_attn"), &config.attention);
        let conv = || ShortConvolution::load(&loader.below("conv"), config.convolution);
        let block = Self {
            self_attn: (kind == Kind::Attention).then(attention).transpose()?,
            conv: (kind == Kind::Convolution).then(conv).transpose()?,
            feed_forward: Mlp::load(&loader.below("feed_forward"), &config.feed_forward)?,
            operator_norm: loader.norm("operator_norm", hidden, config.norm)?,
            ffn_norm: loader.norm("ffn_norm", hidden, config.norm)?,
        };
        let readers = ["q_proj", "k_proj", "v_proj"].map(|name| format!("self_attn.{name}"));
        let [q, k, v] = readers.each_ref().map(String::as_str);
        loader.feeds("operator_norm", 0, &[q, k, v, "conv.in_proj"]);
        loader.feeds("ffn_norm", 0, &["feed_forward.w1", "feed_forward.w3"]);
        Ok(block)
    }
}

impl body::Block for Block {
    type Cache = Kept;

    fn new_cache(&self) -> Kept {
        match &self.self_attn {
            Some(attention) => Kept::KeyValues(attention.new_cache()),
            None => Kept::Inputs(LastInputs::default()),
        }
    }

    fn forward(&self, stream: Stream, span: &Span, caches: Caches<Kept>) -> Stream {
        let [batch, time, hidden] = stream.hidden.dims();
        let continues = caches.is_some();
        let (mut key_values, mut inputs) = (Vec::new(), Vec::new());
        for cache in caches.into_iter().flatten() {
            match cache {
                Kept::KeyValues(kept) => key_values.push(kept),
                Kept::Inputs(kept) => inputs.push(kept),
            }
        }
        let x = stream.hidden.reshape([batch * time, hidden]);
        let y = self.operator_norm.forward(x.clone());
        let y = match (&self.self_attn, &self.conv) {
            (Some(attention), _) => {
                let kept = continues.then_some(&mut key_values[..]);
                attention.forward(y, [batch, time], span, kept)
            }
            (None, Some(conv)) => {
                let kept = continues.then_some(&mut inputs[..]);
                conv.forward(y, [batch, time], span, kept)
            }
            (None, None) => unreachable!("a block has attention or a convolution"),
        };
        let x = x + y;
        let y = self.feed_forward.forward(self.ffn_norm.forward(x.clone()));
        Stream::new((x + y).reshape([batch, time, hidden])).carrying(stream.carried)
    }
}
