//! The attention of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::CausalAttention;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Result, Walk};

use super::config::Gpt2Config;
use crate::body::Span;
use crate::cache::Caches;
use crate::key_values::{KeyValues, attend_each};
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

    /// Attention over `x` of `[batch, time, hidden]` and what the caches hold.
    pub fn forward(&self, x: Traced<3>, span: &Span, caches: Caches<KeyValues>) -> Tensor<3> {
        let [batch, time, width] = x.dims();
        let qkv = self.c_attn.forward(x);
        let heads = [batch, time, self.heads, width / self.heads];
        let qkv = [0, 1, 2].map(|part| qkv.clone().narrow(2, part * width, width).reshape(heads));
        let attend = |qkv: [Tensor<4>; 3], lengths| {
            let op = self.op.clone().with_sequences(lengths);
            ops::attention(qkv.map(|x| self.c_proj.keep(x)), None, op)
        };
        let out = attend_each(qkv, &span.positions, caches, &attend);
        self.c_proj.forward(out.reshape([batch, time, width]))
    }
}
