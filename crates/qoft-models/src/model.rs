//! The whole model: the body of an architecture and the output head.

use std::cell::RefCell;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Gradients, Int, Tensor};
use qoft_core::kernels::ComputeDtype;
use qoft_core::ops::{self, Traced};
use qoft_core::{Error, Layer, Linear, LoadedLinear, Result, Schemes, Walk, walk};

use crate::any_body::AnyBody;
use crate::body::Outputs;
use crate::cache::Cache;
use crate::config::ModelConfig;
use crate::files::Files;
use crate::folder::ModelFolder;
use crate::head;
use crate::in_training::{InTraining, Noise};
use crate::loader::Loader;
use crate::positions::Tokens;
use crate::spec::ModelSpec;
use crate::targets::{Losses, Targets, TrainingBatch};

/// A causal language model of any architecture.
#[derive(Module, Debug)]
pub struct CausalLm {
    body: AnyBody,
    lm_head: Linear,
    #[module(skip)]
    spec: Arc<ModelSpec>,
    /// Multiplies the body's auxiliary loss in training.
    #[module(skip)]
    router_aux_loss_coef: f64,
    /// How much labels are smoothed in training.
    #[module(skip)]
    label_smoothing: f64,
    /// How much noise there is on embeddings in training.
    #[module(skip)]
    embedding_noise: f64,
}

// The paths are those of the architecture, not the names of fields.
impl Walk for CausalLm {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        let names = self.spec.names();
        self.body.walk(&walk::join(path, names.base), visit);
        self.lm_head.walk(&walk::join(path, names.head), visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        let names = self.spec.names();
        self.body.walk_mut(&walk::join(path, names.base), visit);
        self.lm_head.walk_mut(&walk::join(path, names.head), visit);
    }
}

impl CausalLm {
    /// Loads a model onto a plain device; training needs no autodiff device here, as adapters
    /// bring their own.
    ///
    /// `schemes` are those of the folder's checkpoint. `progress` is called after each block with
    /// the numbers of loaded and of all blocks.
    ///
    /// # Errors
    /// If the architecture or its configuration is not supported, or a tensor is missing or does not
    /// fit it.
    pub fn load(
        folder: &ModelFolder,
        schemes: &Schemes,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let spec = folder.spec()?;
        let files = Files {
            checkpoint: folder.checkpoint(),
            schemes,
            device,
            progress: RefCell::new(progress),
            unread_biases: RefCell::default(),
        };
        let body = spec.build(&files)?;
        let config = spec.config();
        let lm_head = if config.tie_word_embeddings {
            let tied = LoadedLinear::shared(body.tokens().weight().clone());
            Linear::new(tied, device).tied()
        } else {
            let shape = [config.vocab_size, config.hidden_size];
            Loader::new(&files, "").linear(spec.names().head, shape, false)?
        };
        files.tell_of_biases();
        Ok(Self {
            body,
            lm_head,
            spec,
            router_aux_loss_coef: 0.0,
            label_smoothing: 0.0,
            embedding_noise: 0.0,
        })
    }

    /// Lets products with frozen weights be computed in this dtype, in training and elsewhere.
    pub fn set_compute_dtype(&mut self, dtype: ComputeDtype) {
        self.walk_mut("", &mut |_, layer| layer.set_compute_dtype(dtype));
    }

    /// The sizes and options that all models have.
    pub fn config(&self) -> &ModelConfig {
        self.spec.config()
    }

    /// What is known of the model without its tensors.
    pub fn spec(&self) -> &Arc<ModelSpec> {
        &self.spec
    }

    /// Module path of the output head.
    pub fn head(&self) -> &str {
        self.spec.names().head
    }

    pub(crate) fn body(&self) -> &AnyBody {
        &self.body
    }

    pub(crate) fn lm_head(&self) -> &Linear {
        &self.lm_head
    }

    /// An empty cache.
    pub fn new_cache(&self) -> Cache {
        self.body.new_cache()
    }

    /// Whether rows can be [`Tokens::packed`]: otherwise sequences in one row would see each other.
    pub fn packs(&self) -> bool {
        self.body.packs()
    }

    /// Hidden states `[batch, time, hidden]` after the final norm.
    ///
    /// With a cache, `input_ids` follow the tokens that it has seen.
    ///
    /// # Panics
    /// If an id is not in the vocabulary, the sequence is longer than
    /// [`ModelConfig::longest_sequence`], or the cache is that of another architecture.
    pub fn hidden(&self, input_ids: Tensor<2, Int>, cache: Option<&mut Cache>) -> Traced<3> {
        let training = InTraining::default();
        self.body.outputs(input_ids.into(), cache, training).hidden
    }

    /// Lets training add a loss of mixtures of experts, times `coef`: how unevenly routers distribute
    /// tokens, as transformers computes it (`load_balancing_loss_func`).
    ///
    /// # Errors
    /// If the model has no mixtures.
    pub fn set_router_aux_loss_coef(&mut self, coef: f64) -> Result<()> {
        if coef != 0.0 && !self.spec.layers().iter().any(|layer| layer.routes) {
            let reason = "the model is no mixture of experts";
            return Err(Error::config("options").key("router_aux_loss_coef", reason));
        }
        self.router_aux_loss_coef = coef;
        Ok(())
    }

    /// Lets training ask for a probability that is spread by this share over the whole vocabulary, as
    /// transformers' `LabelSmoother`.
    pub fn set_label_smoothing(&mut self, smoothing: f64) {
        self.label_smoothing = smoothing;
    }

    /// Lets training add noise to what the first block gets: uniform numbers up to
    /// `alpha / sqrt(time · hidden)` (NEFTune, arXiv 2310.05914), which follow from the place in the run, see
    /// [`adapters::begin`](qoft_core::adapters::begin).
    pub fn set_embedding_noise(&mut self, alpha: f64) {
        self.embedding_noise = alpha;
    }

    /// The sum of the cross-entropies of `targets`, divided by `denominator`: a scalar.
    ///
    /// `targets` has the token that follows each of the `batch · time` positions; `None` where
    /// it does not count. Rows may be padded on the right with any token, or be
    /// [`Tokens::packed`].
    ///
    /// # Panics
    /// If an id is not in the vocabulary, a row is too long (see [`Self::hidden`]), or `targets` has
    /// another length.
    pub fn loss(
        &self,
        tokens: impl Into<Tokens>,
        targets: Vec<Option<u32>>,
        denominator: f64,
    ) -> Tensor<1> {
        self.losses(tokens, targets, denominator).sums.sum()
    }

    /// The sums of the cross-entropies of `targets`, divided by `denominator`, and how many of them are
    /// predicted.
    ///
    /// # Panics
    /// As [`Self::loss`].
    pub fn losses(
        &self,
        tokens: impl Into<Tokens>,
        targets: impl Into<Targets>,
        denominator: f64,
    ) -> Losses {
        let training = InTraining::default();
        let outputs = self.body.outputs(tokens.into(), None, training);
        let targets = targets.into();
        head::losses(
            self.config(),
            &self.lm_head,
            outputs.hidden,
            &targets,
            denominator,
        )
    }

    /// The value of [`Self::loss`], and its gradients with little memory: only the input of each
    /// block is kept, and each block is computed once more for its backward.
    ///
    /// `sink` gets the gradients of one part of the model after another. Together they are
    /// exactly those of [`Self::loss`], unless
    /// [`keep_activations_in`](qoft_core::adapters::keep_activations_in) rounds the inputs.
    ///
    /// # Panics
    /// As [`Self::loss`].
    pub fn backward_by_block(
        &self,
        tokens: impl Into<Tokens>,
        targets: Vec<Option<u32>>,
        denominator: f64,
        sink: &mut dyn FnMut(Gradients),
    ) -> f32 {
        let (tokens, targets) = (tokens.into(), targets.into());
        let objective = |losses: Losses| losses.sums.sum();
        let loss = |outputs| self.objective_of(outputs, &targets, denominator, &objective);
        let training = InTraining::default();
        self.body.backward_by_block(tokens, training, &loss, sink)
    }

    /// What training minimizes: what `objective` makes of the losses, and what
    /// [`Self::set_router_aux_loss_coef`] adds to it, in which padding does not count.
    ///
    /// # Panics
    /// As [`Self::loss`].
    pub fn training_loss(
        &self,
        batch: TrainingBatch<impl Into<Tokens>>,
        objective: &dyn Fn(Losses) -> Tensor<1>,
    ) -> Tensor<1> {
        let tokens = batch.tokens.into();
        let training = self.in_training(&tokens.ids, batch.lengths);
        let outputs = self.body.outputs(tokens, None, training);
        let targets = batch.targets.smoothed(self.label_smoothing);
        self.objective_of(outputs, &targets, batch.denominator, objective)
    }

    /// The value of [`Self::training_loss`] and its gradients, as [`Self::backward_by_block`].
    ///
    /// # Panics
    /// As [`Self::loss`].
    pub fn training_backward_by_block(
        &self,
        batch: TrainingBatch<impl Into<Tokens>>,
        objective: &dyn Fn(Losses) -> Tensor<1>,
        sink: &mut dyn FnMut(Gradients),
    ) -> f32 {
        let tokens = batch.tokens.into();
        let training = self.in_training(&tokens.ids, batch.lengths);
        let targets = batch.targets.smoothed(self.label_smoothing);
        let loss = |outputs| self.objective_of(outputs, &targets, batch.denominator, objective);
        self.body.backward_by_block(tokens, training, &loss, sink)
    }

    /// What a pass of training has beside its tokens.
    fn in_training(&self, input_ids: &Tensor<2, Int>, lengths: &[usize]) -> InTraining {
        let draw = self.body.tokens().adapters().draw();
        let draw = draw.filter(|_| self.embedding_noise > 0.0);
        let alpha = self.embedding_noise;
        InTraining {
            counted: self.counted(input_ids, lengths),
            noise: draw.map(|draw| Noise { alpha, draw }),
        }
    }

    /// The tokens that are no padding, if they matter.
    fn counted(&self, input_ids: &Tensor<2, Int>, lengths: &[usize]) -> Option<Arc<Vec<bool>>> {
        if self.router_aux_loss_coef == 0.0 {
            return None;
        }
        let time = input_ids.dims()[1];
        let rows = lengths.iter();
        let counted = rows.flat_map(|&length| (0..time).map(move |at| at < length));
        Some(Arc::new(counted.collect()))
    }

    /// What training minimizes, from what the body computes.
    fn objective_of(
        &self,
        outputs: Outputs,
        targets: &Targets,
        denominator: f64,
        objective: &dyn Fn(Losses) -> Tensor<1>,
    ) -> Tensor<1> {
        let (config, hidden) = (self.config(), outputs.hidden);
        let loss = objective(head::losses(
            config,
            &self.lm_head,
            hidden,
            targets,
            denominator,
        ));
        match outputs.auxiliary {
            None => loss,
            Some(auxiliary) => {
                let (loss, auxiliary) = ops::lifted(loss, auxiliary);
                loss + auxiliary * self.router_aux_loss_coef
            }
        }
    }

    /// Logits `[batch, vocab]` of the token after the last one.
    ///
    /// # Panics
    /// If an id is not in the vocabulary, there is no token, or there are too many (see
    /// [`Self::hidden`]).
    pub fn last_logits(&self, input_ids: Tensor<2, Int>, cache: Option<&mut Cache>) -> Tensor<2> {
        let hidden = self.hidden(input_ids, cache);
        let [batch, time, width] = hidden.dims();
        let last = hidden
            .into_tensor()
            .narrow(1, time - 1, 1)
            .reshape([batch, width]);
        head::logits(self.config(), self.lm_head.forward(last))
    }
}
