//! The attention of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::CausalAttention;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Result, Walk};

use super::config::Gpt2Config;
use crate::body::Span;
use crate::key_values::KeyValues;
use crate::loader::Loader;

/// Attention whose queries, keys and values come from one projection.
#[derive(Module, Debug, Walk)]
pub struct Attention {
    c_attn: Linear,
    c_proj: Linear,
    #[module(skip)]
    #[walk(skip)]
    heads: usize,
    #[module(skip)]
    #[walk(skip)]
    op: CausalAttention,
}

impl Attention {
    /// Makes the attention of block `index`.
    pub fn load(loader: &Loader, width: usize, config: &Gpt2Config, index: usize) -> Result<Self> {
        let linear = |name: &str, out| loader.conv1d(name, [out, width], true);
        Ok(Self {
            c_attn: linear("c_attn", 3 * width)?,
            c_proj: linear("c_proj", width)?,
            heads: config.heads,
            op: CausalAttention::new(config.scales[index] as f32, None),
        })
    }

    /// Attention over `x` of `[batch, time, hidden]` and what the cache holds.
    pub fn forward(&self, x: Traced<3>, span: &Span, cache: Option<&mut KeyValues>) -> Tensor<3> {
        let [batch, time, width] = x.dims();
        let qkv = self.c_attn.forward(x);
        let heads = [batch, time, self.heads, width / self.heads];
        let [q, k, v] =
            [0, 1, 2].map(|part| qkv.clone().narrow(2, part * width, width).reshape(heads));
        let (k, v) = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let op = self.op.clone().with_sequences(span.positions.lengths());
        let out = ops::attention([q, k, v].map(|x| self.c_proj.keep(x)), None, op);
        self.c_proj.forward(out.reshape([batch, time, width]))
    }
}
