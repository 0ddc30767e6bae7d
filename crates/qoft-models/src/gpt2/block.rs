//! A block: attention and feed-forward layers, each after a norm and with a residual.

use burn::module::Module;
use qoft_core::{Norm, Result, Walk};

use super::attention::Attention;
use super::config::Gpt2Config;
use super::mlp::Mlp;
use crate::body::{self, Span, Stream};
use crate::cache::Caches;
use crate::key_values::KeyValues;
use crate::loader::Loader;

/// One block of the model.
#[derive(Module, Debug, Walk)]
pub struct Block {
    ln_1: Norm,
    attn: Attention,
    ln_2: Norm,
    mlp: Mlp,
}

impl Block {
    /// Makes block `index`.
    pub fn load(loader: &Loader, width: usize, config: &Gpt2Config, index: usize) -> Result<Self> {
        let norm = |name: &str| loader.norm(name, width, config.norm);
        Ok(Self {
            ln_1: norm("ln_1")?,
            attn: Attention::load(&loader.below("attn"), width, config, index)?,
            ln_2: norm("ln_2")?,
            mlp: Mlp::load(&loader.below("mlp"), width, config)?,
        })
    }
}

impl body::Block for Block {
    type Cache = KeyValues;

    fn new_cache(&self) -> KeyValues {
        KeyValues::new(None)
    }

    fn forward(&self, stream: Stream, span: &Span, caches: Caches<KeyValues>) -> Stream {
        let x = stream.hidden;
        let x = x.clone() + self.attn.forward(self.ln_1.forward(x), span, caches);
        let x = x.clone() + self.mlp.forward(self.ln_2.forward(x));
        Stream::new(x).carrying(stream.carried)
    }
}
