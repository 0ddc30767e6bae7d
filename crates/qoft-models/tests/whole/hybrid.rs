//! An architecture with blocks of two kinds, a recurrent state, and something that blocks carry
//! beside the residual stream: caches and the backward by block are right for it, too.

use std::sync::Arc;

use crate::common::{ByLayer, add, batch, loss, rotate};
use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Linear, Norm, Result, Schemes, Walk, default_device};
use qoft_models::decoder::{Attention, AttentionConfig, RopeConfig, RopeDefaults, RopeTables};
use qoft_models::{
    AnyBody, Architecture, ArchitectureRegistration, Architectures, Block, Blueprint, Body, Caches,
    CausalLm, KeyValues, Loader, ModelConfig, ModelFolder, ModelNames, ModelSpec, NormConfig,
    Object, SizeKeys, Span, Stream, only,
};

/// Reads llama's files as another model.
struct Hybrid;

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&Hybrid);

impl Architecture for Hybrid {
    fn name(&self) -> &'static str {
        "hybrid"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["llama"]
    }

    fn describe(&self, json: Object) -> Result<ModelSpec> {
        let mut model = ModelConfig::read(json, &SizeKeys::USUAL)?;
        model.tie_word_embeddings = true;
        let mut attention = AttentionConfig::read(json, model.hidden_size, None)?;
        let (head_dim, positions) = (attention.head_dim, model.max_position_embeddings);
        let rope = RopeConfig::read(json, &RopeDefaults::USUAL, head_dim, positions)?;
        attention.rope = Some(Arc::new(RopeTables::new(rope)));
        ModelSpec::new(model, ModelNames::USUAL, HybridConfig { attention })
    }
}

#[derive(Debug)]
struct HybridConfig {
    attention: AttentionConfig,
}

impl Blueprint for HybridConfig {
    fn build(&self, model: &ModelConfig, loader: &Loader) -> Result<AnyBody> {
        let width = model.hidden_size;
        let block = |loader: &Loader, index: usize| {
            let inside = loader.below("self_attn");
            Ok(HybridBlock {
                self_attn: match index % 2 {
                    0 => Mixer::Attention(Attention::load(&inside, &self.attention)?),
                    _ => Mixer::Recurrence(Recurrence {
                        q_proj: inside.linear("q_proj", [width, width], false)?,
                        o_proj: inside.linear("o_proj", [width, width], false)?,
                    }),
                },
                input_layernorm: loader.norm("input_layernorm", width, NormConfig::new(1e-5))?,
            })
        };
        Ok(AnyBody::new(HybridModel {
            embed_tokens: loader.embedding("embed_tokens", [model.vocab_size, width])?,
            layers: loader.blocks("layers", model.num_hidden_layers, block)?,
            norm: loader.norm("norm", width, NormConfig::new(1e-5))?,
        }))
    }
}

/// `y = o_proj(s)`, where `s_t = s_{t−1} / 2 + q_proj(x_t)`.
#[derive(Module, Debug, Walk)]
struct Recurrence {
    q_proj: Linear,
    o_proj: Linear,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are few")]
enum Mixer {
    Attention(Attention),
    Recurrence(Recurrence),
}

impl Walk for Mixer {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn qoft_core::Layer)) {
        match self {
            Self::Attention(attention) => attention.walk(path, visit),
            Self::Recurrence(recurrence) => recurrence.walk(path, visit),
        }
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn qoft_core::Layer)) {
        match self {
            Self::Attention(attention) => attention.walk_mut(path, visit),
            Self::Recurrence(recurrence) => recurrence.walk_mut(path, visit),
        }
    }
}

#[derive(Module, Debug, Walk)]
struct HybridBlock {
    self_attn: Mixer,
    input_layernorm: Norm,
}

/// Keys and values, or the last state.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there are few")]
enum HybridCache {
    KeyValues(KeyValues),
    State(Option<Tensor<3>>),
}

impl Block for HybridBlock {
    type Cache = HybridCache;

    fn new_cache(&self) -> HybridCache {
        match &self.self_attn {
            Mixer::Attention(attention) => HybridCache::KeyValues(attention.new_cache()),
            Mixer::Recurrence(_) => HybridCache::State(None),
        }
    }

    fn forward(&self, stream: Stream, span: &Span, caches: Caches<HybridCache>) -> Stream {
        let [batch, time, width] = stream.hidden.dims();
        let x = self.input_layernorm.forward(stream.hidden.clone());
        let y = match (&self.self_attn, only(caches)) {
            (Mixer::Attention(attention), cache) => {
                let mut cache = cache.map(|cache| match cache {
                    HybridCache::KeyValues(kept) => [kept],
                    HybridCache::State(_) => panic!("a cache of this block"),
                });
                let cache = cache.as_mut().map(|cache| &mut cache[..]);
                let x = x.reshape([batch * time, width]);
                let y = attention.forward(x, [batch, time], span, cache);
                y.reshape([batch, time, width])
            }
            (Mixer::Recurrence(recurrence), cache) => {
                let input = recurrence.q_proj.forward(x);
                let kept = match cache {
                    Some(HybridCache::State(state)) => Some(state),
                    _ => None,
                };
                let mut state = kept.as_ref().and_then(|state| (*state).clone());
                let mut states = Vec::new();
                for t in 0..time {
                    let new = input.clone().narrow(1, t, 1);
                    let next = match state {
                        Some(old) => old * 0.5 + new,
                        None => new,
                    };
                    states.push(next.clone());
                    state = Some(next);
                }
                if let Some(kept) = kept {
                    *kept = state;
                }
                recurrence.o_proj.forward(Tensor::cat(states, 1))
            }
        };
        // What blocks add is carried on, and counts once more at the end.
        let carried = stream.carried.into_iter().map(|sum| sum + y.clone().tanh());
        let carried = carried.collect();
        Stream::new(stream.hidden + y).carrying(carried)
    }
}

#[derive(Module, Debug, Walk)]
struct HybridModel {
    embed_tokens: Embedding,
    layers: Vec<HybridBlock>,
    norm: Norm,
}

impl Body for HybridModel {
    type Block = HybridBlock;

    fn embed(&self, input_ids: Tensor<2, Int>, _span: &Span) -> Stream {
        let x = self.embed_tokens.forward(input_ids);
        Stream::new(x.clone()).carrying(vec![x * 0.1])
    }

    fn blocks(&self) -> &[HybridBlock] {
        &self.layers
    }

    fn finish(&self, stream: Stream) -> Traced<3> {
        let carried = stream.carried.into_iter();
        self.norm
            .forward(carried.fold(stream.hidden, |x, sum| x + sum))
    }

    fn tokens(&self) -> &Embedding {
        &self.embed_tokens
    }
}

fn model() -> CausalLm {
    // The projection of the queries is square in this one.
    let folder = qoft_fixtures::path("models/llama_bias");
    let folder = ModelFolder::open(folder, &Architectures::new([&REGISTRATION]).unwrap()).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let device = default_device().unwrap();
    CausalLm::load(&folder, &schemes, &device, &mut |_, _| ()).unwrap()
}

#[test]
fn states_of_all_kinds_are_kept() {
    let (model, device) = (model(), default_device().unwrap());
    let row: Vec<i32> = (0..20).map(|i| (i * 7 + 5) % 60).collect();
    let ids = |range: std::ops::Range<usize>| {
        Tensor::<1, Int>::from_data(&row[range], &device).unsqueeze::<2>()
    };
    let mut cache = model.new_cache();
    let mut at = 0;
    for tokens in [6, 1, 1, 4, 1, 7] {
        let cached = model.last_logits(ids(at..at + tokens), Some(&mut cache));
        at += tokens;
        let whole = model.last_logits(ids(0..at), None);
        let off = (cached - whole).abs().max().into_scalar::<f32>();
        assert!(off < 1e-4, "at {at} logits differ by {off}");
    }
    // A copy goes on by itself.
    let mut copy = cache.clone();
    let logits = |cache| model.last_logits(ids(3..4), Some(cache)).into_data();
    assert_eq!(logits(&mut cache), logits(&mut copy));
    assert_eq!((cache.len(), copy.len()), (21, 21));
}

#[test]
#[should_panic(expected = "a cache of a model of the same architecture")]
fn a_cache_of_another_architecture_is_refused() {
    let mut cache = crate::common::load("llama_bias").new_cache();
    let ids = Tensor::<2, Int>::from_data([[1, 2]], &default_device().unwrap());
    model().last_logits(ids, Some(&mut cache));
}

#[test]
fn gradients_by_block_are_those_of_the_whole_graph() {
    for wanted in ["", "layers.1.", "layers.0.", "embed_tokens"] {
        let mut model = model();
        rotate(&mut model, 0.0, |path| path.contains(wanted));
        let (whole, mut expected) = (loss(&model), ByLayer::new());
        add(&mut expected, whole.backward(), &model);
        let ((ids, targets, count), mut found) = (batch(), ByLayer::new());
        let mut sink = |part| add(&mut found, part, &model);
        let value = model.backward_by_block(ids, targets, count, &mut sink);
        assert_eq!(value, whole.into_scalar::<f32>(), "{wanted}");
        assert!(!expected.is_empty());
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        for (path, expected) in &expected {
            let size = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let pairs = expected.iter().zip(&found[path]);
            let off = pairs.fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            // Two streams of gradients are added up in another order.
            assert!(off <= 1e-5 * size, "{path}: {off} of {size}");
        }
    }
}
