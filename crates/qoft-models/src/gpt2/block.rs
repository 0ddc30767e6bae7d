//! A block: attention and feed-forward layers, each after a norm and with a residual.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::{Norm, Result, Walk};

use super::attention::Attention;
use super::config::Gpt2Config;
use super::mlp::Mlp;
use crate::cache::LayerCache;
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
    /// Loads block `layer` from the module path `path`.
    pub fn load(
        loader: &Loader,
        width: usize,
        config: &Gpt2Config,
        path: &str,
        layer: usize,
    ) -> Result<Self> {
        let norm = |name: &str| loader.layer_norm(&format!("{path}.{name}"), width, config.eps);
        Ok(Self {
            attn: Attention::load(loader, width, config, &format!("{path}.attn"), layer)?,
            mlp: Mlp::load(loader, width, config, &format!("{path}.mlp"))?,
            ln_1: norm("ln_1")?,
            ln_2: norm("ln_2")?,
        })
    }
}

impl crate::stack::Block for Block {
    type Shared = ();

    fn forward(&self, x: Tensor<3>, (): &(), cache: Option<&mut LayerCache>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.ln_1.forward(x), cache);
        x.clone() + self.mlp.forward(self.ln_2.forward(x))
    }
}
