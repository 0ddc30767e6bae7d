//! The attention of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::{CausalAttention, Rope};
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Norm, Result, Walk};

use super::config::{DecoderConfig, Family};
use crate::cache::LayerCache;
use crate::loader::Loader;

/// Attention with grouped heads; the projections are single or, in phi3, fused.
#[derive(Module, Debug, Walk)]
pub struct Attention {
    q_proj: Option<Linear>,
    k_proj: Option<Linear>,
    v_proj: Option<Linear>,
    qkv_proj: Option<Linear>,
    o_proj: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    #[module(skip)]
    #[walk(skip)]
    shape: Shape,
}

/// Sizes and options.
#[derive(Debug, Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Whether norms see single heads rather than all of them at once.
    norm_heads: bool,
    rope: bool,
    op: CausalAttention,
}

impl Attention {
    /// Loads the attention of block `layer` from the module path `path`.
    pub fn load(
        loader: &Loader,
        hidden: usize,
        config: &DecoderConfig,
        path: &str,
        layer: usize,
    ) -> Result<Self> {
        let head_dim = config.head_dim;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let fused = config.family == Family::Phi3;
        let input = |wanted: bool, name: &str, out: usize| -> Result<Option<Linear>> {
            let path = format!("{path}.{name}");
            let load = || loader.linear(&path, [out, hidden], config.biases.qkv);
            wanted.then(load).transpose()
        };
        let norm_heads = config.family == Family::Qwen3;
        let norm = |name: &str, width: usize| -> Result<Option<Norm>> {
            let width = if norm_heads { head_dim } else { width };
            let wanted = norm_heads || config.family == Family::Olmo2;
            let path = format!("{path}.{name}");
            let load = || loader.root_mean_square(&path, width, config.rms_norm_eps);
            wanted.then(load).transpose()
        };
        Ok(Self {
            q_proj: input(!fused, "q_proj", queries)?,
            k_proj: input(!fused, "k_proj", keys)?,
            v_proj: input(!fused, "v_proj", keys)?,
            qkv_proj: input(fused, "qkv_proj", queries + 2 * keys)?,
            o_proj: loader.linear(
                &format!("{path}.o_proj"),
                [hidden, queries],
                config.biases.output,
            )?,
            q_norm: norm("q_norm", queries)?,
            k_norm: norm("k_norm", keys)?,
            shape: Shape {
                heads,
                kv_heads,
                head_dim,
                norm_heads,
                rope: config.layers[layer].rope,
                op: CausalAttention {
                    scale: config.multipliers.attention as f32,
                    window: config.layers[layer].window,
                },
            },
        })
    }

    /// Attention over `x` of `[batch · time, hidden]` and what the cache holds.
    pub fn forward(
        &self,
        x: Traced<2>,
        [batch, time]: [usize; 2],
        rope: &Rope,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<2> {
        let shape = self.shape;
        let [q, k, v] = self.project(x);
        let heads = |heads| [batch, time, heads, shape.head_dim];
        let q = self.position(q, &self.q_norm, heads(shape.heads), rope);
        let k = self.position(k, &self.k_norm, heads(shape.kv_heads), rope);
        let v = v.reshape(heads(shape.kv_heads));
        let (k, v) = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let out = ops::attention(q, k, v, shape.op);
        self.o_proj
            .forward(out.reshape([batch * time, shape.heads * shape.head_dim]))
    }

    /// Queries, keys and values, `[batch · time, heads · head_dim]`.
    fn project(&self, x: Traced<2>) -> [Tensor<2>; 3] {
        if let (Some(q), Some(k), Some(v)) = (&self.q_proj, &self.k_proj, &self.v_proj) {
            return Linear::forward_each([q, k, v], x);
        }
        let fused = self.qkv_proj.as_ref().expect("single or fused projections");
        let qkv = fused.forward(x);
        let Shape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        [(0, queries), (queries, keys), (queries + keys, keys)]
            .map(|(start, width)| qkv.clone().narrow(1, start, width))
    }

    /// Splits queries or keys into heads, normalizes and rotates them.
    fn position(
        &self,
        x: Tensor<2>,
        norm: &Option<Norm>,
        shape: [usize; 4],
        rope: &Rope,
    ) -> Tensor<4> {
        let x = match norm {
            None => x.reshape(shape),
            Some(norm) if self.shape.norm_heads => norm.forward(x.reshape(shape)).into_tensor(),
            Some(norm) => norm.forward(x).into_tensor().reshape(shape),
        };
        if self.shape.rope {
            ops::rope(x, rope.clone())
        } else {
            x
        }
    }
}
