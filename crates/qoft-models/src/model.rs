//! The whole model: the layers of an architecture and the output head.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{
    Checkpoint, Embedding, Layer, Linear, LoadOptions, LoadedLinear, Registry, Result, Walk, walk,
};

use crate::cache::KvCache;
use crate::config::{Architecture, ModelConfig};
use crate::gpt2::Transformer;
use crate::head;
use crate::llama::Decoder;
use crate::loader::Loader;
use crate::stack::Stack;

/// A causal language model.
#[derive(Module, Debug)]
pub struct CausalLm {
    pub(crate) body: Body,
    lm_head: Linear,
    #[module(skip)]
    config: Arc<ModelConfig>,
}

/// Everything below the output head.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has one of them")]
pub(crate) enum Body {
    Decoder(Decoder),
    Gpt2(Transformer),
}

impl Body {
    fn load(
        loader: &Loader,
        config: &ModelConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        match &config.architecture {
            Architecture::Decoder(own) => {
                Decoder::load(loader, config, own, progress).map(Self::Decoder)
            }
            Architecture::Gpt2(own) => {
                Transformer::load(loader, config, own, progress).map(Self::Gpt2)
            }
        }
    }

    fn embedding(&self) -> &Embedding {
        match self {
            Self::Decoder(body) => body.embedding(),
            Self::Gpt2(body) => body.embedding(),
        }
    }

    fn hidden(&self, input_ids: Tensor<2, Int>, cache: Option<&mut KvCache>) -> Traced<3> {
        match self {
            Self::Decoder(body) => body.hidden(input_ids, cache),
            Self::Gpt2(body) => body.hidden(input_ids, cache),
        }
    }
}

// The path of the body is that of its architecture, not the name of a field.
impl Walk for CausalLm {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        match &self.body {
            Body::Decoder(body) => body.walk(&walk::join(path, Decoder::PATH), visit),
            Body::Gpt2(body) => body.walk(&walk::join(path, Transformer::PATH), visit),
        }
        self.lm_head.walk(&walk::join(path, Self::HEAD), visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        match &mut self.body {
            Body::Decoder(body) => body.walk_mut(&walk::join(path, Decoder::PATH), visit),
            Body::Gpt2(body) => body.walk_mut(&walk::join(path, Transformer::PATH), visit),
        }
        self.lm_head.walk_mut(&walk::join(path, Self::HEAD), visit);
    }
}

impl CausalLm {
    /// Module path of the output head.
    pub const HEAD: &'static str = "lm_head";

    /// Loads a model onto a plain device; training needs no autodiff device here, as adapters
    /// bring their own.
    ///
    /// `progress` is called after each layer with the numbers of loaded and of all layers.
    ///
    /// # Errors
    /// If the configuration is not supported, or a tensor is missing or does not fit it.
    pub fn load(
        checkpoint: &Checkpoint,
        registry: &Registry,
        options: &LoadOptions,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        registry.check_options(&options.backend)?;
        let config = ModelConfig::parse(checkpoint.config())?;
        let loader = Loader {
            checkpoint,
            registry,
            options,
            device,
        };
        let body = Body::load(&loader, &config, progress)?;
        // As in transformers, a head that is stored all the same is ignored.
        let lm_head = if config.tie_word_embeddings {
            let tied = LoadedLinear {
                weight: body.embedding().weight().clone(),
                bias: None,
                input_quantizer: None,
            };
            Linear::new(tied, device).tied()
        } else {
            loader.linear(Self::HEAD, [config.vocab_size, config.hidden_size], false)?
        };
        Ok(Self {
            body,
            lm_head,
            config: Arc::new(config),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Hidden states `[batch, time, hidden]` after the final norm.
    ///
    /// With a cache, `input_ids` follow the tokens that it has seen.
    ///
    /// # Panics
    /// If an id is not in the vocabulary, or the sequence is longer than
    /// [`ModelConfig::longest_sequence`].
    pub fn hidden(&self, input_ids: Tensor<2, Int>, mut cache: Option<&mut KvCache>) -> Traced<3> {
        let time = input_ids.dims()[1];
        let hidden = self.body.hidden(input_ids, cache.as_deref_mut());
        if let Some(cache) = cache {
            cache.advance(time);
        }
        hidden
    }

    /// The sum of the cross-entropies of `targets`, divided by `denominator`: a scalar.
    ///
    /// `targets` has the token that follows each of the `batch · time` positions; `None` where
    /// it does not count. Rows may be padded on the right with any token.
    ///
    /// # Panics
    /// If an id is not in the vocabulary, a row is too long (see [`Self::hidden`]), or `targets` has
    /// another length.
    pub fn loss(
        &self,
        input_ids: Tensor<2, Int>,
        targets: Vec<Option<u32>>,
        denominator: f64,
    ) -> Tensor<1> {
        self.head_loss(self.hidden(input_ids, None), targets, denominator)
    }

    /// The loss from hidden states after the last norm.
    pub(crate) fn head_loss(
        &self,
        hidden: Traced<3>,
        targets: Vec<Option<u32>>,
        denominator: f64,
    ) -> Tensor<1> {
        let scale = self.config.logits_multiplier() as f32;
        head::loss(&self.lm_head, hidden, targets, scale, denominator)
    }

    /// Logits `[batch, vocab]` of the token after the last one.
    ///
    /// # Panics
    /// If an id is not in the vocabulary, there is no token, or there are too many (see
    /// [`Self::hidden`]).
    pub fn last_logits(&self, input_ids: Tensor<2, Int>, cache: Option<&mut KvCache>) -> Tensor<2> {
        let hidden = self.hidden(input_ids, cache);
        let [batch, time, width] = hidden.dims();
        let last = hidden
            .into_tensor()
            .narrow(1, time - 1, 1)
            .reshape([batch, width]);
        let logits = self.lm_head.forward(last);
        match self.config.logits_multiplier() {
            1.0 => logits,
            multiplier => logits * multiplier,
        }
    }
}
