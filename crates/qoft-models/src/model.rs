//! The whole model: embedding, blocks and output head.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use qoft_core::kernels::ops::LinearCrossEntropy;
use qoft_core::{
    Checkpoint, Embedding, Linear, LoadOptions, LoadedLinear, Registry, Result, ops, walkable,
};

use crate::block::Block;
use crate::cache::KvCache;
use crate::config::ModelConfig;
use crate::loader::Loader;
use crate::norm::Norm;
use crate::rope::RopeTables;

/// A causal language model.
#[derive(Module, Debug)]
pub struct CausalLm {
    pub(crate) model: Decoder,
    lm_head: Linear,
    #[module(skip)]
    config: Arc<ModelConfig>,
}

walkable!(CausalLm { model, lm_head });

/// Everything below the output head.
#[derive(Module, Debug)]
pub(crate) struct Decoder {
    embed_tokens: Embedding,
    pub(crate) layers: Vec<Block>,
    #[module(skip)]
    norm: Norm,
    #[module(skip)]
    pub(crate) rope: RopeTables,
}

walkable!(Decoder {
    embed_tokens,
    layers
});

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
            config: &config,
        };
        let embed_tokens = loader.embedding("model.embed_tokens")?;
        let total = config.num_hidden_layers;
        // The count is the file's word: memory is only taken for layers that are there.
        let mut layers = Vec::new();
        for layer in 0..total {
            layers.push(Block::load(
                &loader,
                &format!("model.layers.{layer}"),
                layer,
            )?);
            progress(layer + 1, total);
        }
        // As in transformers, a head that is stored all the same is ignored.
        let lm_head = if config.tie_word_embeddings {
            let tied = LoadedLinear {
                weight: embed_tokens.weight().clone(),
                bias: None,
                input_quantizer: None,
            };
            Linear::new(tied, device).tied()
        } else {
            loader.linear(Self::HEAD, [config.vocab_size, config.hidden_size], false)?
        };
        Ok(Self {
            model: Decoder {
                embed_tokens,
                layers,
                norm: loader.norm("model.norm", config.hidden_size)?,
                rope: RopeTables::new(config.rope.clone()),
            },
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
    /// If an id is not in the vocabulary.
    pub fn hidden(&self, input_ids: Tensor<2, Int>, mut cache: Option<&mut KvCache>) -> Tensor<3> {
        let decoder = &self.model;
        let time = input_ids.dims()[1];
        let start = cache.as_ref().map_or(0, |cache| cache.len());
        let rope = decoder.rope.table(start..start + time);
        let mut x = self.embed(input_ids);
        for (index, layer) in decoder.layers.iter().enumerate() {
            let cache = cache.as_mut().map(|cache| cache.layer(index));
            x = layer.forward(x, &rope, cache);
        }
        if let Some(cache) = cache {
            cache.advance(time);
        }
        decoder.norm.forward(x)
    }

    /// The sum of the cross-entropies of `targets`, divided by `denominator`: a scalar.
    ///
    /// `targets` has the token that follows each of the `batch · time` positions; `None` where
    /// it does not count. Rows may be padded on the right with any token.
    ///
    /// # Panics
    /// If an id is not in the vocabulary, or `targets` has another length.
    pub fn loss(
        &self,
        input_ids: Tensor<2, Int>,
        targets: Vec<Option<u32>>,
        denominator: f64,
    ) -> Tensor<1> {
        self.head_loss(self.hidden(input_ids, None), targets, denominator)
    }

    /// What the first block gets.
    pub(crate) fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        let x = self.model.embed_tokens.forward(input_ids);
        match self.config.multipliers.embedding {
            1.0 => x,
            multiplier => x * multiplier,
        }
    }

    /// The loss from what the last block gives.
    pub(crate) fn final_loss(
        &self,
        x: Tensor<3>,
        targets: Vec<Option<u32>>,
        denominator: f64,
    ) -> Tensor<1> {
        self.head_loss(self.model.norm.forward(x), targets, denominator)
    }

    fn head_loss(
        &self,
        hidden: Tensor<3>,
        targets: Vec<Option<u32>>,
        denominator: f64,
    ) -> Tensor<1> {
        let bias = self.lm_head.bias().map(|bias| {
            let values = bias.to_data().iter::<f32>().collect();
            Arc::new(values)
        });
        ops::linear_cross_entropy(
            self.lm_head.matmul_input(hidden),
            LinearCrossEntropy {
                weight: self.lm_head.weight().clone(),
                bias,
                scale: self.config.multipliers.logits as f32,
                labels: Arc::new(targets),
                denominator,
            },
        )
    }

    /// Logits `[batch, vocab]` of the token after the last one.
    ///
    /// # Panics
    /// If an id is not in the vocabulary, or there is no token.
    pub fn last_logits(&self, input_ids: Tensor<2, Int>, cache: Option<&mut KvCache>) -> Tensor<2> {
        let hidden = self.hidden(input_ids, cache);
        let [batch, time, width] = hidden.dims();
        let last = hidden.narrow(1, time - 1, 1).reshape([batch, width]);
        self.lm_head.forward(last) * self.config.multipliers.logits
    }

    /// Parameters outside the layers that adapters are for: those of the norms.
    pub fn other_parameters(&self) -> usize {
        let decoder = &self.model;
        let blocks = decoder.layers.iter().map(Block::norm_parameters);
        blocks.sum::<usize>() + decoder.norm.parameters()
    }
}
