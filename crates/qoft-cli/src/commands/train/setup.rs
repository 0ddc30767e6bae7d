//! What a training needs, loaded.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use qoft::core::{Error, SmallFiles, trainable_parameters};
use qoft::models::{CausalLm, ModelSpec};
use qoft::peft::AdapterConfig;
use qoft::train::data::Split;
use qoft::train::model_facts;
use qoft::train::train::{ADAPTER, Below, Digest, RunFolder, TrainConfig, Trainer};
use qoft::{Registries, peft};

use super::learned::Learned;
use super::rows::TrainingData;
use crate::args::{AdapterArg, TrainArgs, answer_tokens};
use crate::located::{Wanted, place};
use crate::print::{errln, warnln};
use crate::processes::Processes;
use crate::{data, files, progress, vocabulary};

/// What a training needs beside its model, which it takes.
pub struct Setup<D> {
    /// The settings of the training loop.
    pub config: TrainConfig,
    /// The settings of the adapter.
    pub adapter_config: Arc<dyn AdapterConfig>,
    /// What the model is.
    pub spec: Arc<ModelSpec>,
    /// The rows.
    pub data: TrainingData<D>,
    /// The model's small files, among which is its tokenizer.
    pub small_files: SmallFiles,
    base: Digest,
    below: Vec<Below>,
}

/// The settings of a training, checked as far as they can be without its model and data.
pub struct Settings {
    config: TrainConfig,
    adapter_config: Arc<dyn AdapterConfig>,
}

impl Settings {
    /// What the options say; those without effect are named.
    pub fn new(args: &TrainArgs, registries: &Registries) -> Result<Self> {
        let config = args.config()?;
        let adapter_config = args.adapter_config(&registries.families)?;
        config.validate_evaluation(args.eval_data.is_some() || args.val_size.is_some())?;
        for line in args.unused(&config)? {
            warnln!("{line}");
        }
        Ok(Self {
            config,
            adapter_config,
        })
    }

    /// Has steps of so many batches, those of all processes together.
    pub fn with_batches(mut self, batches: usize) -> Self {
        self.config.gradient_accumulation_steps = batches;
        self
    }

    /// Whether preferences are learned, and not examples.
    pub fn prefers(&self) -> bool {
        self.config.preference.is_some()
    }
}

impl<D: Learned> Setup<D> {
    /// Loads the model and the data of `args`, and attaches the adapter that trains.
    pub fn load(
        args: &TrainArgs,
        registries: &Registries,
        settings: Settings,
        processes: &Processes,
    ) -> Result<(Self, D::Model)> {
        let Settings {
            mut config,
            adapter_config,
        } = settings;
        let (model_dir, sources) = args.required_inputs()?;
        let frozen_args = args.frozen()?;
        let frozen = files::adapters(registries, &frozen_args)?;
        let below = below(&frozen_args)?;
        let device = files::device(args.device.as_deref())?;
        config.compute_dtype = files::compute_dtype(args.compute_dtype.as_deref(), &device)?;
        let backend_options = args.backend_option.clone().unwrap_or_default();

        // The digest is that of the files, before tensors get the names that they have in the model.
        let checkpoint = files::checkpoint(registries, &place(model_dir, Wanted::Model)?)?;
        let dense = (!args.quantizes()).then(|| Digest::of_checkpoint(&checkpoint));
        let folder = files::described(registries, checkpoint)?;
        let start = args.start_from.as_deref();
        let others: Vec<&Path> = frozen_args.iter().map(|a| a.folder.as_path()).collect();
        let others: Vec<&Path> = others.into_iter().chain(start).collect();
        let folder = vocabulary::of_adapters(folder, &others)?;
        let tokens = args.new_tokens.tokens();
        let grown = vocabulary::with_new_tokens(folder, &tokens, start)?;
        let families = &registries.families;
        let adapter_config = vocabulary::with_whole_modules(adapter_config, grown.whole, families)?;
        let folder = grown.model;
        let tokenizer = args.reading.tokenizer(files::tokenizer(&folder)?)?;
        // The template that is trained with belongs to the adapter.
        let folder = match args.reading.chat_template {
            Some(_) => vocabulary::with_templates(folder, tokenizer.chat_templates())?,
            None => folder,
        };
        let small_files = folder.checkpoint().small_files().clone();
        let scheme = args.quantize.as_deref();
        let quantized = || files::quantized(registries, folder, scheme, &args.load, &frozen_args);
        let folder = match args.load.quantize_cache {
            Some(_) => processes.first_then_others(quantized)?,
            None => quantized()?,
        };
        let base = dense.unwrap_or_else(|| Digest::of_checkpoint(folder.checkpoint()))?;
        let schemes = files::schemes(registries, folder.checkpoint(), &backend_options)?;
        let mut model = files::load(&folder, &schemes, &device)?;
        model.set_compute_dtype(config.compute_dtype);
        model.set_router_aux_loss_coef(args.router_aux_loss_coef.unwrap_or(0.0))?;
        let reading = data::For {
            tokenizer: &tokenizer,
            model: model.config(),
            max_length: args.max_length,
            answer_tokens: answer_tokens(config.preference.as_ref()),
            split: Split::Train,
        };
        // The tokens of large data are kept on disk.
        let read = || D::read(args, &sources, reading, &config);
        let mut data = processes.first_then_others(read)?;

        let spec = model.spec().clone();
        files::attach(&mut model, &frozen, model_dir, &device)?;
        peft::attach(
            &mut model,
            &*adapter_config,
            model_facts(&spec),
            ADAPTER,
            config.seed,
            &device.clone().autodiff(),
        )?;
        qoft::check_trainable(&folder, &schemes, &model)?;
        errln!("{}", trainable_line(&model));
        let model = D::begin(model, &mut data, &config, &device)?;
        let setup = Self {
            config,
            adapter_config,
            spec,
            data,
            small_files,
            base,
            below,
        };
        Ok((setup, model))
    }

    /// A run that writes into `folder`.
    pub fn trainer<'a>(&'a self, folder: &'a RunFolder) -> Trainer<'a, D> {
        let mut trainer = Trainer::new(
            &self.config,
            &*self.adapter_config,
            &self.data.dataset,
            folder,
        );
        trainer.base = Some(&self.base);
        trainer.below = &self.below;
        trainer.eval_dataset = self.data.eval_dataset.as_ref();
        trainer
    }
}

/// What the files of the training say about the adapters below.
fn below(adapters: &[AdapterArg]) -> Result<Vec<Below>, Error> {
    let below = |adapter: &AdapterArg| Below::new(&adapter.folder, adapter.strength);
    adapters.iter().map(below).collect()
}

/// The numbers of parameters, as PEFT prints them.
pub fn trainable_line(model: &CausalLm) -> String {
    let (trainable, all) = trainable_parameters(model);
    format!(
        "trainable params: {} || all params: {} || trainable%: {:.4}",
        progress::grouped(trainable),
        progress::grouped(all),
        100.0 * trainable as f64 / all as f64
    )
}
