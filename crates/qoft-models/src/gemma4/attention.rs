//! The attention of a block, which may read the keys and values of an earlier one.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::CausalAttention;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Norm, Result, Still, Walk};

use crate::body::Span;
use crate::decoder::RopeTables;
use crate::key_values::KeyValues;
use crate::loader::Loader;
use crate::norm::NormConfig;

/// Where the keys and values of a layer come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// From its own layers.
    Own,
    /// From its own layers, and it hands them on.
    HandsOn,
    /// From an earlier layer: they are carried beside the residual stream, from this place on.
    Reads(usize),
}

/// Attention, described.
#[derive(Debug, Clone)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the keys and values.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether all layers have biases.
    pub bias: bool,
    /// Whether the values are what `k_proj` makes, too.
    pub keys_are_values: bool,
    /// Where keys and values come from.
    pub sharing: Sharing,
    /// How many keys a query sees at most, itself included.
    pub window: Option<usize>,
    /// Rotary positions.
    pub rope: Arc<RopeTables>,
    /// The norms on queries, keys and values.
    pub norm: NormConfig,
}

/// Attention whose values have a norm without a weight, too.
#[derive(Module, Debug, Walk)]
pub struct Attention {
    q_proj: Linear,
    k_proj: Option<Linear>,
    v_proj: Option<Linear>,
    o_proj: Linear,
    q_norm: Norm,
    k_norm: Option<Norm>,
    /// The weight of the norm of the values.
    #[walk(skip)]
    ones: Still<Tensor<1>>,
    #[module(skip)]
    #[walk(skip)]
    config: Arc<AttentionConfig>,
}

/// Keys and values, `[batch, keys, kv_heads, head_dim]`.
pub type Pair = (Tensor<4>, Tensor<4>);

impl Attention {
    /// Makes the layers.
    pub fn load(loader: &Loader, config: &AttentionConfig) -> Result<Self> {
        let (hidden, width) = (config.hidden, config.head_dim);
        let (queries, keys) = (config.heads * width, config.kv_heads * width);
        let own = !matches!(config.sharing, Sharing::Reads(_));
        let input = |name, out, wanted: bool| {
            let load = || loader.linear(name, [out, hidden], config.bias);
            wanted.then(load).transpose()
        };
        let norm = |name| loader.norm(name, width, config.norm);
        let q_proj = loader.linear("q_proj", [queries, hidden], config.bias)?;
        let k_proj = input("k_proj", keys, own)?;
        let v_proj = input("v_proj", keys, own && !config.keys_are_values)?;
        let o_proj = loader.linear("o_proj", [hidden, queries], config.bias)?;
        let q_norm = norm("q_norm")?;
        let device = q_norm.weight().device();
        Ok(Self {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            k_norm: own.then(|| norm("k_norm")).transpose()?,
            q_norm,
            ones: Still::new(Tensor::ones([width], &device)),
            config: Arc::new(config.clone()),
        })
    }

    /// A cache of no tokens.
    pub fn new_cache(&self) -> KeyValues {
        KeyValues::new(self.config.window)
    }

    /// The kind of sharing.
    pub fn sharing(&self) -> Sharing {
        self.config.sharing
    }

    /// Attention over `x` of `[batch · time, hidden]`, and the keys and values that it has read: those that
    /// are `shared`, or its own behind what the cache holds.
    pub fn forward(
        &self,
        x: Traced<2>,
        [batch, time]: [usize; 2],
        span: &Span,
        cache: Option<&mut KeyValues>,
        shared: Option<[Tensor<3>; 2]>,
    ) -> (Tensor<2>, Pair) {
        let config = &*self.config;
        let table = config.rope.table(&span.positions);
        let heads = |count| [batch, time, count, config.head_dim];
        let positioned = |x: Tensor<2>, norm: &Norm, count| {
            let x = norm.forward(x.reshape(heads(count)));
            config.rope.rotate(x.into_tensor(), &table)
        };
        let (q, own) = match (&self.k_proj, &self.v_proj) {
            (Some(k_proj), Some(v_proj)) => {
                let [q, k, v] = Linear::forward_each([&self.q_proj, k_proj, v_proj], x);
                (q, Some((k, v)))
            }
            (Some(k_proj), None) => {
                let [q, k] = Linear::forward_each([&self.q_proj, k_proj], x);
                (q, Some((k.clone(), k)))
            }
            (None, _) => (self.q_proj.forward(x), None),
        };
        let q = positioned(q, &self.q_norm, config.heads);
        let (k, v) = match (own, &self.k_norm, shared) {
            (Some((k, v)), Some(norm), _) => {
                let k = positioned(k, norm, config.kv_heads);
                let v = v.reshape(heads(config.kv_heads));
                let ones = Tensor::clone(&self.ones);
                let v = ops::rms_norm(v, ones, config.norm.eps).into_tensor();
                match cache {
                    Some(cache) => cache.append(k, v),
                    None => (k, v),
                }
            }
            (_, _, Some(shared)) => {
                let [k, v] = shared.map(|x| {
                    let keys = x.dims()[1];
                    x.reshape([batch, keys, config.kv_heads, config.head_dim])
                });
                (k, v)
            }
            _ => unreachable!("keys and values are a layer's own, or shared"),
        };
        // The norms keep products small: there is no scale.
        let op = CausalAttention::new(1.0, config.window).with_sequences(span.positions.lengths());
        let inputs = [q, k.clone(), v.clone()].map(|x| self.o_proj.keep(x));
        let out = ops::attention(inputs, None, op);
        let width = config.heads * config.head_dim;
        let y = self.o_proj.forward(out.reshape([batch * time, width]));
        (y, (k, v))
    }
}
