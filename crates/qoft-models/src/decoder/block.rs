//! A decoder block: what mixes tokens, and feed-forward layers, with norms and residuals.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::ops::Traced;
use qoft_core::{Norm, Result, Walk, walk};

use super::attention::Attention;
use super::balance::added;
use super::delta_net::{DeltaNet, DeltaNetCache};
use super::feed_forward::{FeedForward, FeedForwardConfig};
use super::mixer::{MixerCache, MixerConfig};
use super::mixture::SharedConfig;
use super::mlp::{Mlp, MlpConfig};
use crate::body::{self, Span, Stream};
use crate::cache::Caches;
use crate::loader::Loader;
use crate::norm::NormConfig;

/// Where the norms of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormPlacement {
    /// Before attention and before the feed-forward layers.
    Before,
    /// After them, before the residual is added.
    After,
    /// Before and after each of them.
    Around,
    /// Before and after each of them; those before are called as in [`Self::Before`].
    AroundSublayers,
    /// One before both: what mixes tokens and the feed-forward layers read the same.
    Parallel,
}

/// What the feed-forward part of a block is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedForwardName {
    /// `mlp`.
    Mlp,
    /// `block_sparse_moe`.
    BlockSparseMoe,
    /// `shared_mlp`; a mixture is `block_sparse_moe`.
    SharedMlp,
}

/// A block, described.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BlockConfig {
    /// What mixes its tokens.
    pub mixer: MixerConfig,
    /// Its feed-forward layers.
    pub feed_forward: FeedForwardConfig,
    /// What these are called.
    pub feed_forward_name: FeedForwardName,
    /// Where its norms are.
    pub norms: NormPlacement,
    /// What the norms are.
    pub norm: NormConfig,
    /// Multiplies what is added to the residual stream.
    pub residual: f64,
}

impl BlockConfig {
    /// Norms before what mixes tokens and before the feed-forward layers.
    pub fn new(
        mixer: impl Into<MixerConfig>,
        feed_forward: impl Into<FeedForwardConfig>,
        norm: NormConfig,
    ) -> Self {
        Self {
            mixer: mixer.into(),
            feed_forward: feed_forward.into(),
            feed_forward_name: FeedForwardName::Mlp,
            norms: NormPlacement::Before,
            norm,
            residual: 1.0,
        }
    }
}

impl BlockConfig {
    /// Path of the feed-forward part.
    fn feed_forward_path(&self) -> &'static str {
        match (self.feed_forward_name, &self.feed_forward) {
            (FeedForwardName::Mlp, _) => "mlp",
            (FeedForwardName::SharedMlp, FeedForwardConfig::Dense(_)) => "shared_mlp",
            _ => "block_sparse_moe",
        }
    }

    /// What there is under `shared_mlp`.
    fn shared(&self) -> Option<&MlpConfig> {
        match &self.feed_forward {
            FeedForwardConfig::Dense(mlp) => {
                Some(mlp).filter(|_| self.feed_forward_path() == "shared_mlp")
            }
            FeedForwardConfig::Mixture(mixture) => match &mixture.shared {
                Some(SharedConfig::Beside(mlp)) => Some(mlp),
                _ => None,
            },
        }
    }

    /// Says which layers read the norms.
    fn tell_readers(&self, loader: &Loader) {
        let feed_forward = match &self.feed_forward {
            FeedForwardConfig::Dense(mlp) => {
                let path = self.feed_forward_path();
                let readers = mlp.readers().into_iter();
                readers.map(|name| walk::join(path, name)).collect()
            }
            // The router of a mixture and all experts would have to be scaled together.
            FeedForwardConfig::Mixture(_) => Vec::new(),
        };
        let mixer = self.mixer.readers();
        let feeds = |norm: &str, readers: &[&str]| loader.feeds(norm, 0, readers);
        let feed_forward: Vec<&str> = feed_forward.iter().map(String::as_str).collect();
        match self.norms {
            NormPlacement::After => {}
            NormPlacement::Before | NormPlacement::AroundSublayers => {
                feeds("input_layernorm", mixer);
                feeds("post_attention_layernorm", &feed_forward);
            }
            NormPlacement::Around => {
                feeds("input_layernorm", mixer);
                feeds("pre_feedforward_layernorm", &feed_forward);
            }
            NormPlacement::Parallel if matches!(self.feed_forward, FeedForwardConfig::Dense(_)) => {
                feeds("input_layernorm", &[mixer, &feed_forward].concat());
            }
            NormPlacement::Parallel => {}
        }
    }
}

/// One block of the model.
#[derive(Module, Debug, Walk)]
pub struct Block {
    self_attn: Option<Attention>,
    linear_attn: Option<DeltaNet>,
    mlp: Option<FeedForward>,
    block_sparse_moe: Option<FeedForward>,
    shared_mlp: Option<Mlp>,
    input_layernorm: Option<Norm>,
    post_attention_layernorm: Option<Norm>,
    pre_feedforward_layernorm: Option<Norm>,
    post_feedforward_layernorm: Option<Norm>,
    post_self_attn_layernorm: Option<Norm>,
    post_mlp_layernorm: Option<Norm>,
    #[module(skip)]
    #[walk(skip)]
    norms: NormPlacement,
    #[module(skip)]
    #[walk(skip)]
    residual: f64,
}

impl Block {
    /// Makes the layers.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load(loader: &Loader, config: &BlockConfig) -> Result<Self> {
        let hidden = config.mixer.hidden();
        let norm = |name: &str| loader.norm(name, hidden, config.norm);
        let optional = |placements: &[NormPlacement], name: &str| {
            let wanted = placements.contains(&config.norms);
            wanted.then(|| norm(name)).transpose()
        };
        let (mut self_attn, mut linear_attn) = (None, None);
        match &config.mixer {
            MixerConfig::Attention(config) => {
                self_attn = Some(Attention::load(&loader.below("self_attn"), config)?);
            }
            MixerConfig::DeltaNet(config) => {
                linear_attn = Some(DeltaNet::load(&loader.below("linear_attn"), config)?);
            }
        }
        let path = config.feed_forward_path();
        let feed_forward = |name: &str| {
            let load =
                || FeedForward::load(&loader.below(name), loader.path(), &config.feed_forward);
            (path == name).then(load).transpose()
        };
        let mlp = feed_forward("mlp")?;
        let block_sparse_moe = feed_forward("block_sparse_moe")?;
        let shared = config.shared();
        let shared = shared.map(|shared| Mlp::load(&loader.below("shared_mlp"), shared));
        use NormPlacement::{After, Around, AroundSublayers, Before, Parallel};
        config.tell_readers(loader);
        Ok(Self {
            self_attn,
            linear_attn,
            mlp,
            block_sparse_moe,
            shared_mlp: shared.transpose()?,
            input_layernorm: optional(
                &[Before, Around, AroundSublayers, Parallel],
                "input_layernorm",
            )?,
            post_attention_layernorm: optional(
                &[Before, After, Around, AroundSublayers],
                "post_attention_layernorm",
            )?,
            pre_feedforward_layernorm: optional(&[Around], "pre_feedforward_layernorm")?,
            post_feedforward_layernorm: optional(&[After, Around], "post_feedforward_layernorm")?,
            post_self_attn_layernorm: optional(&[AroundSublayers], "post_self_attn_layernorm")?,
            post_mlp_layernorm: optional(&[AroundSublayers], "post_mlp_layernorm")?,
            norms: config.norms,
            residual: config.residual,
        })
    }

    fn add(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        if self.residual == 1.0 {
            x + y
        } else {
            x + y * self.residual
        }
    }
}

impl body::Block for Block {
    type Cache = MixerCache;

    fn new_cache(&self) -> MixerCache {
        match &self.self_attn {
            Some(attention) => MixerCache::KeyValues(attention.new_cache()),
            None => MixerCache::DeltaNet(DeltaNetCache::default()),
        }
    }

    fn forward(&self, stream: Stream, span: &Span, caches: Caches<MixerCache>) -> Stream {
        let [batch, time, hidden] = stream.hidden.dims();
        let x = stream.hidden.reshape([batch * time, hidden]);
        let y = apply(self.input_layernorm.as_ref(), x.clone());
        let before = (self.norms == NormPlacement::Parallel).then(|| y.clone());
        let y = match (&self.self_attn, &self.linear_attn) {
            (Some(attention), _) => {
                let mut kept = caches.map(|caches| MixerCache::key_values(caches));
                attention.forward(y, [batch, time], span, kept.as_deref_mut())
            }
            (None, Some(net)) => {
                let mut kept = caches.map(|caches| MixerCache::delta_nets(caches));
                net.forward(y, [batch, time], span, kept.as_deref_mut())
            }
            (None, None) => unreachable!("a block mixes its tokens"),
        };
        // The same name stands for two places.
        let norm = self.post_attention_layernorm.as_ref();
        let (x, y) = match self.norms {
            NormPlacement::After | NormPlacement::Around => {
                let x = self.add(x, apply(norm, y).into_tensor());
                (x.clone(), apply(self.pre_feedforward_layernorm.as_ref(), x))
            }
            NormPlacement::Before | NormPlacement::AroundSublayers => {
                let y = apply(self.post_self_attn_layernorm.as_ref(), y);
                let x = self.add(x, y.into_tensor());
                (x.clone(), apply(norm, x))
            }
            NormPlacement::Parallel => {
                let before = before.expect("what both read");
                (self.add(x, y), before)
            }
        };
        let counted = span.counted.as_ref().map(|counted| counted.as_slice());
        let shared = self.shared_mlp.as_ref();
        let (y, balance) = match self.mlp.as_ref().or(self.block_sparse_moe.as_ref()) {
            Some(feed_forward) => feed_forward.forward(y, counted, shared),
            None => (shared.expect("one of the names").forward(y), None),
        };
        let after = self.post_feedforward_layernorm.as_ref();
        let y = apply(after.or(self.post_mlp_layernorm.as_ref()), y);
        let x = self.add(x, y.into_tensor());
        let carried = match balance {
            None => stream.carried,
            Some(balance) => vec![added(stream.carried.into_iter().next(), balance)],
        };
        Stream::new(x.reshape([batch, time, hidden])).carrying(carried)
    }
}

fn apply(norm: Option<&Norm>, x: impl Into<Traced<2>>) -> Traced<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x.into(),
    }
}
