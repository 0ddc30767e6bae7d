//! The attention of a block.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use qoft_core::kernels::ops::{CausalAttention, Rope, SoftCap};
use qoft_core::ops::{self, Traced};
use qoft_core::{Layer, Linear, Norm, Result, Still, Walk, walk};

use super::query_growth::QueryGrowth;
use super::rope::RopeTables;
use crate::body::Span;
use crate::cache::Caches;
use crate::json::Object;
use crate::key_values::{KeyValues, attend_each};
use crate::loader::Loader;
use crate::norm::NormConfig;

/// How several projections of the same input are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Projections {
    /// A layer for each: `q_proj`, `k_proj` and `v_proj`, or `gate_proj` and `up_proj`.
    Single,
    /// One layer whose outputs stand side by side: `qkv_proj`, or `gate_up_proj`.
    Fused,
}

/// What files call layers that have several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the usual names")]
#[non_exhaustive]
pub struct AttentionNames {
    pub o_proj: &'static str,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
}

impl AttentionNames {
    /// The usual ones.
    pub const USUAL: Self = Self {
        o_proj: "o_proj",
        q_norm: "q_norm",
        k_norm: "k_norm",
    };

    /// With other names of the norms of queries and keys.
    #[must_use]
    pub const fn with_norms(self, q_norm: &'static str, k_norm: &'static str) -> Self {
        Self {
            q_norm,
            k_norm,
            ..self
        }
    }
}

/// Norms of the root mean square on queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadNorm {
    /// None.
    Without,
    /// On each head by itself.
    Each,
    /// On each head by itself, behind the rotary positions.
    EachPositioned,
    /// On all heads together.
    Whole,
}

/// Attention of grouped heads, described.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the keys and values; divides the former.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// What some of the layers are called.
    pub names: AttentionNames,
    /// How the projections to queries, keys and values are stored.
    pub projections: Projections,
    /// Whether these projections have biases.
    pub input_bias: bool,
    /// Whether the projection of the output has a bias.
    pub output_bias: bool,
    /// Norms on queries and keys.
    pub head_norm: HeadNorm,
    /// What these norms are.
    pub norm: NormConfig,
    /// Rotary positions of queries and keys.
    pub rope: Option<Arc<RopeTables>>,
    /// Whether `q_proj` makes a gate beside each head's query; its sigmoid multiplies the head's output.
    pub output_gate: bool,
    /// How queries grow with their position.
    pub query_growth: Option<QueryGrowth>,
    /// What scores are multiplied by.
    pub scale: f64,
    /// How many keys a query sees at most, itself included; `None`: all before it.
    pub window: Option<usize>,
    /// Bounds the scaled scores.
    pub soft_cap: Option<SoftCap>,
    /// Queries, keys and values are cut off at this distance from 0, before they get positions.
    pub clip: Option<f64>,
    /// Whether each head has a sink: a score beside those of the keys, whose value is 0.
    pub sinks: bool,
}

impl AttentionConfig {
    /// Reads the usual keys of the heads; `head_dim` is their width in files without that key,
    /// instead of an equal share of `hidden`. Neither biases, norms, positions nor windows.
    ///
    /// # Errors
    /// If a value is missing, or the heads do not fit each other or the width.
    pub fn read(json: Object, hidden: usize, head_dim: Option<usize>) -> Result<Self> {
        let heads = json.require_size("num_attention_heads")?;
        let kv_heads = json.size("num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("{kv_heads} does not divide {heads} heads");
            return Err(json.error("num_key_value_heads", reason));
        }
        let absent = head_dim.filter(|_| !json.has("head_dim"));
        let head_dim = match json.size("head_dim")?.or(absent) {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let reason =
                    format!("{hidden} is no multiple of {heads} heads, and there is no head_dim");
                return Err(json.error("hidden_size", reason));
            }
        };
        Ok(Self {
            hidden,
            heads,
            kv_heads,
            head_dim,
            names: AttentionNames::USUAL,
            projections: Projections::Single,
            input_bias: false,
            output_bias: false,
            head_norm: HeadNorm::Without,
            norm: NormConfig::new(1e-6),
            rope: None,
            output_gate: false,
            query_growth: None,
            scale: (head_dim as f64).powf(-0.5),
            window: None,
            soft_cap: None,
            clip: None,
            sinks: false,
        })
    }

    fn queries(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Features that the projection of the queries makes.
    fn projected_queries(&self) -> usize {
        match self.output_gate {
            true => 2 * self.queries(),
            false => self.queries(),
        }
    }

    fn keys(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Attention with grouped heads.
#[derive(Module, Debug)]
pub struct Attention {
    q_proj: Option<Linear>,
    k_proj: Option<Linear>,
    v_proj: Option<Linear>,
    qkv_proj: Option<Linear>,
    o_proj: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    sinks: Option<Still<Tensor<1>>>,
    #[module(skip)]
    config: Arc<AttentionConfig>,
}

impl Attention {
    /// Makes the layers.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load(loader: &Loader, config: &AttentionConfig) -> Result<Self> {
        let (hidden, queries, keys) = (config.hidden, config.queries(), config.keys());
        let projected = config.projected_queries();
        let input = |kind: Projections, name: &str, out: usize| -> Result<Option<Linear>> {
            let load = || loader.linear(name, [out, hidden], config.input_bias);
            (config.projections == kind).then(load).transpose()
        };
        let names = config.names;
        let widths = match config.head_norm {
            HeadNorm::Without => None,
            HeadNorm::Each | HeadNorm::EachPositioned => Some([config.head_dim; 2]),
            HeadNorm::Whole => Some([queries, keys]),
        };
        let norm = |name: &str, at: usize| -> Result<Option<Norm>> {
            let load = |widths: [usize; 2]| loader.norm(name, widths[at], config.norm);
            widths.map(load).transpose()
        };
        let attention = Self {
            q_proj: input(Projections::Single, "q_proj", projected)?,
            k_proj: input(Projections::Single, "k_proj", keys)?,
            v_proj: input(Projections::Single, "v_proj", keys)?,
            qkv_proj: input(Projections::Fused, "qkv_proj", projected + 2 * keys)?,
            o_proj: loader.linear(names.o_proj, [hidden, queries], config.output_bias)?,
            q_norm: norm(names.q_norm, 0)?,
            k_norm: norm(names.k_norm, 1)?,
            sinks: match config.sinks {
                true => Some(Still::new(loader.tensor("sinks", [config.heads])?)),
                false => None,
            },
            config: Arc::new(config.clone()),
        };
        // Otherwise several features of the output are one of the values.
        if config.heads == config.kv_heads {
            match config.projections {
                Projections::Single => loader.feeds("v_proj", 0, &[names.o_proj]),
                Projections::Fused => loader.feeds("qkv_proj", projected + keys, &[names.o_proj]),
            }
        }
        Ok(attention)
    }

    /// A cache of no tokens.
    pub fn new_cache(&self) -> KeyValues {
        KeyValues::new(self.config.window)
    }

    /// Attention over `x` of `[batch · time, hidden]` and what the caches hold, one for each sequence.
    pub fn forward(
        &self,
        x: Traced<2>,
        [batch, time]: [usize; 2],
        span: &Span,
        caches: Caches<KeyValues>,
    ) -> Tensor<2> {
        let config = &*self.config;
        let rope = config.rope.as_ref();
        let rope = rope.map(|tables| (&**tables, tables.table(&span.positions)));
        let [q, k, v] = self.project(x);
        let heads = |heads| [batch, time, heads, config.head_dim];
        let (q, gate) = self.without_gate(q);
        let q = self.position(q, &self.q_norm, heads(config.heads), rope.as_ref());
        let k = self.position(k, &self.k_norm, heads(config.kv_heads), rope.as_ref());
        let q = match config.query_growth {
            Some(growth) => growth.apply(q, &span.positions),
            None => q,
        };
        let v = self.clipped(v).reshape(heads(config.kv_heads));
        let attend = |qkv: [Tensor<4>; 3], lengths| {
            let op = CausalAttention::new(config.scale as f32, config.window)
                .with_soft_cap(config.soft_cap)
                .with_sequences(lengths);
            let sinks = self.sinks.as_deref().cloned();
            ops::attention(qkv.map(|x| self.o_proj.keep(x)), sinks, op)
        };
        let out = attend_each([q, k, v], &span.positions, caches, &attend);
        let out = out.reshape([batch * time, config.queries()]);
        self.o_proj.forward(match gate {
            Some(gate) => {
                let (out, gate) = ops::lifted(out, sigmoid(gate));
                out * gate
            }
            None => out,
        })
    }

    /// The queries, and the gates that stand beside them.
    fn without_gate(&self, q: Tensor<2>) -> (Tensor<2>, Option<Tensor<2>>) {
        let config = &*self.config;
        if !config.output_gate {
            return (q, None);
        }
        let rows = q.dims()[0];
        let heads = q.reshape([rows, config.heads, 2 * config.head_dim]);
        let half = |start| {
            let half = heads.clone().narrow(2, start, config.head_dim);
            half.reshape([rows, config.queries()])
        };
        (half(0), Some(half(config.head_dim)))
    }

    /// Queries, keys and values, `[batch · time, heads · head_dim]`.
    fn project(&self, x: Traced<2>) -> [Tensor<2>; 3] {
        if let (Some(q), Some(k), Some(v)) = (&self.q_proj, &self.k_proj, &self.v_proj) {
            return Linear::forward_each([q, k, v], x);
        }
        let fused = self.qkv_proj.as_ref().expect("single or fused projections");
        let qkv = fused.forward(x);
        let (queries, keys) = (self.config.projected_queries(), self.config.keys());
        [(0, queries), (queries, keys), (queries + keys, keys)]
            .map(|(start, width)| qkv.clone().narrow(1, start, width))
    }

    fn clipped<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.config.clip {
            Some(clip) => x.clamp(-clip, clip),
            None => x,
        }
    }

    /// Splits queries or keys into heads, normalizes and rotates them.
    fn position(
        &self,
        x: Tensor<2>,
        norm: &Option<Norm>,
        shape: [usize; 4],
        rope: Option<&(&RopeTables, Rope)>,
    ) -> Tensor<4> {
        let head_norm = self.config.head_norm;
        let x = match norm {
            Some(norm) if head_norm == HeadNorm::Whole => norm.forward(x).into_tensor(),
            _ => x,
        };
        let normalized = |x: Tensor<4>, place: HeadNorm| match norm {
            Some(norm) if head_norm == place => norm.forward(x).into_tensor(),
            _ => x,
        };
        let x = self.clipped(normalized(x.reshape(shape), HeadNorm::Each));
        let x = match rope {
            Some((tables, table)) => tables.rotate(x, table),
            None => x,
        };
        normalized(x, HeadNorm::EachPositioned)
    }
}

// The paths are those of the files, not the names of fields.
impl Walk for Attention {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        let names = self.config.names;
        self.q_proj.walk(&walk::join(path, "q_proj"), visit);
        self.k_proj.walk(&walk::join(path, "k_proj"), visit);
        self.v_proj.walk(&walk::join(path, "v_proj"), visit);
        self.qkv_proj.walk(&walk::join(path, "qkv_proj"), visit);
        self.o_proj.walk(&walk::join(path, names.o_proj), visit);
        self.q_norm.walk(&walk::join(path, names.q_norm), visit);
        self.k_norm.walk(&walk::join(path, names.k_norm), visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        let names = self.config.names;
        self.q_proj.walk_mut(&walk::join(path, "q_proj"), visit);
        self.k_proj.walk_mut(&walk::join(path, "k_proj"), visit);
        self.v_proj.walk_mut(&walk::join(path, "v_proj"), visit);
        self.qkv_proj.walk_mut(&walk::join(path, "qkv_proj"), visit);
        self.o_proj.walk_mut(&walk::join(path, names.o_proj), visit);
        self.q_norm.walk_mut(&walk::join(path, names.q_norm), visit);
        self.k_norm.walk_mut(&walk::join(path, names.k_norm), visit);
    }
}
