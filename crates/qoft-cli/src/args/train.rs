//! Options of `qoft train`, from flags and from a YAML file with the same names.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use qoft::train::train::TrainConfig;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::file::{read_yaml, translated};
use super::names::names;
use super::values::{finite, object};
use super::{
    AdapterArg, DataArg, DataArgs, LoadArgs, NewTokenArgs, PreferenceArgs, ProcessArgs, RunOptions,
    TrainingArgs, locate_data, named, replace,
};
use crate::located::Wanted;

/// Options of `train`. Everything is optional here: what a flag leaves open, the file of
/// `--config` may say, and defaults fill the rest.
#[derive(Debug, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainArgs {
    /// A YAML file with options of the same names; flags win.
    #[arg(long)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The checkpoint folder, or its name on the Hugging Face Hub: OWNER/NAME[@REVISION] [required].
    #[arg(value_name = "MODEL")]
    #[serde(skip)]
    pub given: Option<PathBuf>,
    /// The same, as an option.
    #[arg(long, conflicts_with = "given")]
    pub model: Option<PathBuf>,
    /// A data file, a folder of some, or a name on the Hub; several with weights are mixed [required].
    #[arg(long, value_name = "PATH[:WEIGHT]")]
    #[serde(deserialize_with = "one_or_many")]
    pub data: Option<Vec<String>>,
    /// How data files are read.
    #[command(flatten)]
    #[serde(flatten)]
    pub reading: DataArgs,
    /// The folder for the adapter [required]. If it has a run with the same options that did not
    /// come to its end, that goes on; otherwise it must be new or empty unless resuming.
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Begin anew where the output folder has a run: what it left is removed once model and data are
    /// loaded. With --resume-from it has no effect.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub overwrite_output_dir: Option<bool>,
    /// Continue an earlier run: `last` checkpoint in the output folder, `auto` for that one if there
    /// is one, or the output folder of a run or a checkpoint-N in it, whose options are then taken.
    #[arg(long, value_name = "last|auto|FOLDER")]
    pub resume_from: Option<PathBuf>,
    /// Begin a new run with the weights of this adapter or checkpoint.
    #[arg(long, value_name = "FOLDER", conflicts_with = "resume_from")]
    pub start_from: Option<PathBuf>,
    /// Where to compute [default: cpu].
    #[arg(long)]
    pub device: Option<String>,
    /// Dtype in which products with frozen weights are computed: `f32`, `bf16`, or `auto` for bf16 where the
    /// device multiplies it faster. Sums and all else stay in f32 [default: f32].
    #[arg(long, value_name = "DTYPE")]
    pub compute_dtype: Option<String>,
    /// Options of backends, such as `bnb-8bit.int8_activations=true`.
    #[arg(long, value_name = "BACKEND.KEY=VALUE")]
    pub backend_option: Option<Vec<String>>,
    /// As the flag that all commands have; here it is the file's.
    #[arg(skip)]
    pub threads: Option<NonZeroUsize>,

    /// Quantize a dense model by a scheme and its settings, such as
    /// `hqq,nbits=4,group_size=64`; `qoft backends` lists those that can.
    #[arg(long, visible_alias = "load-in", value_name = "SCHEME[,KEY=VALUE…]")]
    pub quantize: Option<String>,
    /// How a dense model is quantized.
    #[command(flatten)]
    #[serde(flatten)]
    pub load: LoadArgs,

    /// An adapter folder that stays as it is below the one that trains, with a strength other than
    /// 1 if wanted; several are applied one after another.
    #[arg(long, help_heading = "Adapter", value_name = "PATH[=STRENGTH]")]
    pub adapter: Option<Vec<String>>,
    /// Take the options of the adapter from PEFT's file; flags win.
    #[arg(long, help_heading = "Adapter")]
    pub adapter_config: Option<PathBuf>,
    /// Family of the adapter, by its `peft_type`, such as `hra` [default: oft].
    #[arg(long, help_heading = "Adapter")]
    pub peft_type: Option<String>,
    /// An option of the adapter that has none here, under PEFT's name, such as `apply_GS=true`.
    #[arg(long, help_heading = "Adapter", value_name = "KEY=VALUE")]
    pub adapter_option: Option<Vec<String>>,
    /// Size of a rotation block [default: 32].
    #[arg(long, help_heading = "Adapter")]
    pub oft_block_size: Option<usize>,
    /// Number of rotation blocks, instead of their size [default: 0].
    #[arg(long, help_heading = "Adapter", visible_alias = "r")]
    pub oft_r: Option<usize>,
    /// Names separated by commas, `all-linear`, or a regular expression [default: by model type].
    #[arg(long, help_heading = "Adapter")]
    pub target_modules: Option<String>,
    /// Of these, modules that are left out: names separated by commas, or a regular expression.
    #[arg(long, help_heading = "Adapter")]
    pub exclude_modules: Option<String>,
    /// Parameters of experts to target, separated by commas, such as
    /// `mlp.experts.gate_up_proj,mlp.experts.down_proj`.
    #[arg(long, help_heading = "Adapter")]
    pub target_parameters: Option<String>,
    /// Biases that train: `none`, `all`, or `oft_only` for those of the targeted layers
    /// [default: none].
    #[arg(long, help_heading = "Adapter")]
    pub bias: Option<String>,
    /// Modules that train whole, separated by commas, such as `lm_head,embed_tokens`.
    #[arg(long, help_heading = "Adapter", visible_alias = "additional-target")]
    pub modules_to_save: Option<String>,
    /// Tokens that the model gets.
    #[command(flatten)]
    #[serde(flatten)]
    pub new_tokens: NewTokenArgs,
    /// Approximate the Cayley map by its Neumann series [default: true].
    #[arg(long, help_heading = "Adapter", num_args = 0..=1, default_missing_value = "true")]
    pub use_cayley_neumann: Option<bool>,
    /// Terms of the series [default: 5].
    #[arg(long, help_heading = "Adapter")]
    pub num_cayley_neumann_terms: Option<usize>,
    /// Constrained OFT.
    #[arg(long, help_heading = "Adapter", num_args = 0..=1, default_missing_value = "true")]
    pub coft: Option<bool>,
    /// Radius of constrained OFT [default: 6e-5].
    #[arg(long, help_heading = "Adapter", value_parser = finite)]
    pub eps: Option<f64>,
    /// One block for all positions of a layer.
    #[arg(long, help_heading = "Adapter", num_args = 0..=1, default_missing_value = "true")]
    pub block_share: Option<bool>,
    /// Share of blocks that a step replaces by the identity [default: 0].
    #[arg(long, help_heading = "Adapter", value_parser = finite)]
    pub module_dropout: Option<f64>,

    /// Tokens that a row keeps [default: 1024].
    #[arg(long, help_heading = "Training")]
    pub max_length: Option<usize>,
    /// How much it counts that routers of experts distribute tokens unevenly: multiplies the auxiliary
    /// loss of mixtures, which is added to the loss [default: 0].
    #[arg(long, help_heading = "Training", value_parser = finite, visible_alias = "moe-aux-loss-coef")]
    pub router_aux_loss_coef: Option<f64>,
    /// Put several examples into each row of --max-length tokens, which do not see each other.
    #[arg(long, help_heading = "Training", num_args = 0..=1, default_missing_value = "true")]
    pub packing: Option<bool>,
    /// Put examples of about the same length into each batch.
    #[arg(long, help_heading = "Training", num_args = 0..=1, default_missing_value = "true")]
    pub group_by_length: Option<bool>,
    /// The settings of the training loop.
    #[command(flatten)]
    #[serde(flatten)]
    pub training: TrainingArgs,

    /// What is learned.
    #[command(flatten)]
    #[serde(flatten)]
    pub preference: PreferenceArgs,

    /// Beside other processes.
    #[command(flatten)]
    #[serde(flatten)]
    pub processes: ProcessArgs,

    /// A data file to evaluate on.
    #[arg(long, help_heading = "Reports")]
    pub eval_data: Option<PathBuf>,
    /// Set aside this share of the rows, or so many rows, to evaluate on.
    #[arg(long, help_heading = "Reports", value_parser = finite, conflicts_with = "eval_data")]
    pub val_size: Option<f64>,
    /// `none`, `tensorboard`, `csv` or `all`, several separated by commas: what is written beside
    /// log.jsonl and report.html [default: none].
    #[arg(long, help_heading = "Reports")]
    pub report_to: Option<String>,
    /// Options of other programs, with their values.
    #[arg(skip)]
    #[serde(skip)]
    pub foreign: Map<String, Value>,

    /// Measure what the training would need, as `qoft estimate` does, instead of it.
    #[arg(long, help_heading = "Reports")]
    #[serde(skip)]
    pub dry_run: bool,
    /// Print one JSON object at the end.
    #[arg(long, help_heading = "Reports", num_args = 0..=1, default_missing_value = "true")]
    pub json: Option<bool>,
}

/// What is written beside the log of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reports {
    /// Event files of TensorBoard.
    pub tensorboard: bool,
    /// The log as a table.
    pub csv: bool,
}

impl TrainArgs {
    /// Adds what the file of `--config` says, and the run that is to go on.
    pub fn with_file(self) -> Result<Self> {
        let saved = match &self.resume_from {
            Some(folder) => RunOptions::of_run(folder)?,
            None => None,
        };
        let (mut options, mut source) = (Map::new(), String::new());
        if let Some((folder, saved)) = saved {
            options = saved.into_options();
            options.insert("output".into(), json!(folder));
            source = folder.display().to_string();
        }
        if let Some(path) = &self.config {
            source = path.display().to_string();
            let known = object(&Self::default())?;
            let known: Vec<String> = known.into_iter().map(|(key, _)| key).collect();
            options.extend(read_yaml(path, &known).with_context(|| source.clone())?);
        }
        let foreign = translated(&self.foreign)?;
        if source.is_empty() && foreign.is_empty() {
            return Ok(self);
        }
        options.extend(foreign);
        let flags = serde_json::to_value(&self)?;
        for (key, value) in flags.as_object().into_iter().flatten() {
            if !value.is_null() {
                options.insert(key.clone(), value.clone());
            }
        }
        let read = named::read(&Map::new(), &options);
        let mut read: Self = match source.is_empty() {
            true => read,
            false => read.context(source),
        }?;
        read.dry_run = self.dry_run;
        Ok(read)
    }

    /// Model, data and output folder, which must be given.
    pub fn required(&self) -> Result<(&Path, Vec<DataArg>, &Path)> {
        let (model, data) = self.inputs();
        match (model, data, &self.output) {
            (Some(model), Some(data), Some(output)) => Ok((model, DataArg::all(data)?, output)),
            (model, data, output) => self.missing(&[
                ("--model DIR", model.is_some()),
                ("--data FILE", data.is_some()),
                ("--output DIR", output.is_some()),
            ]),
        }
    }

    /// Model and data, which must be given.
    pub fn required_inputs(&self) -> Result<(&Path, Vec<DataArg>)> {
        match self.inputs() {
            (Some(model), Some(data)) => Ok((model, DataArg::all(data)?)),
            (model, data) => self.missing(&[
                ("--model DIR", model.is_some()),
                ("--data FILE", data.is_some()),
            ]),
        }
    }

    /// Puts paths here in place of names on the Hub, but for the model.
    pub fn locate(&mut self) -> Result<()> {
        for adapter in self.adapter.iter_mut().flatten() {
            let mut arg =
                AdapterArg::from_text(adapter).map_err(|e| anyhow!("--adapter {adapter}: {e}"))?;
            let given = arg.folder.clone();
            arg.locate()?;
            if arg.folder != given {
                *adapter = format!("{}={}", arg.folder.display(), arg.strength);
            }
        }
        if let Some(start) = &mut self.start_from {
            replace(start, Wanted::Model)?;
        }
        let mut data = self.data.iter_mut().flatten();
        data.try_for_each(locate_data)?;
        if let Some(data) = &mut self.eval_data {
            replace(data, Wanted::Data)?;
        }
        Ok(())
    }

    /// Fails with the inputs that are missing, or says what was taken for one.
    fn missing<T>(&self, options: &[(&str, bool)]) -> Result<T> {
        let ending = self.model.as_deref().and_then(Path::extension);
        let is_config = ending.is_some_and(|ending| ending == "yaml" || ending == "yml");
        if let (true, Some(path)) = (is_config, &self.model) {
            let path = path.display();
            bail!("{path} is no model; options are read from a file by --config {path}");
        }
        missing(options)
    }

    fn inputs(&self) -> (Option<&Path>, Option<&[String]>) {
        let data = self.data.as_deref().filter(|data| !data.is_empty());
        (self.model.as_deref(), data)
    }

    /// The settings of the training loop.
    pub fn config(&self) -> Result<TrainConfig> {
        let mut config = self.training.config()?;
        config.preference = self.preference.config()?;
        config.validate()?;
        Ok(config)
    }

    /// What is written beside the log.
    pub fn reports(&self) -> Result<Reports> {
        let mut reports = Reports::default();
        for name in names(self.report_to.as_deref().unwrap_or_default()) {
            match name.to_lowercase().as_str() {
                "none" => {}
                "all" => {
                    reports = Reports {
                        tensorboard: true,
                        csv: true,
                    }
                }
                "tensorboard" => reports.tensorboard = true,
                "csv" => reports.csv = true,
                _ => bail!(
                    "--report-to {name}: nothing is sent anywhere; it may be none, tensorboard, csv or all"
                ),
            }
        }
        Ok(reports)
    }

    /// Whether a dense model is quantized.
    pub fn quantizes(&self) -> bool {
        self.quantize.is_some() || self.load.asks()
    }

    /// Those of the named options that are given.
    pub(super) fn given(&self, names: &[&str]) -> Result<Map<String, Value>> {
        let mut given = object(self)?;
        given.retain(|name, value| names.contains(&name.as_str()) && !value.is_null());
        Ok(given)
    }
}

/// Fails with those of the `options` that are not given.
fn missing<T>(options: &[(&str, bool)]) -> Result<T> {
    let missing = options.iter().filter(|(_, is_given)| !is_given);
    let missing: Vec<&str> = missing.map(|(option, _)| *option).collect();
    let verb = if missing.len() == 1 { "is" } else { "are" };
    bail!("{} {verb} missing", missing.join(", "))
}

/// A list, of which one element may stand alone.
fn one_or_many<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Vec<String>>, D::Error> {
    Ok(match Value::deserialize(value)? {
        Value::Null => None,
        Value::String(one) => Some(vec![one]),
        many => Some(serde_json::from_value(many).map_err(D::Error::custom)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::NamedTempFile, PathBuf) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_path_buf();
        (file, path)
    }

    #[test]
    fn flags_win_over_the_file() {
        let (_file, path) = file("learning-rate: 0.5\nbatch_size: 3\ntarget_modules: [a, b]\n");
        let flags = TrainArgs {
            config: Some(path),
            training: TrainingArgs {
                batch_size: Some(7),
                ..TrainingArgs::default()
            },
            ..TrainArgs::default()
        };
        let merged = flags.with_file().unwrap();
        let config = merged.training.config().unwrap();
        assert_eq!((config.learning_rate, config.batch_size), (0.5, 7));
        let adapter = merged
            .adapter_config(&qoft::peft::Families::linked().unwrap())
            .unwrap()
            .to_json();
        assert_eq!(adapter["target_modules"], serde_json::json!(["a", "b"]));
    }

    #[test]
    fn unknown_names_in_the_file_are_errors() {
        let (_file, path) = file("learning_rat: 0.5\n");
        let args = TrainArgs {
            config: Some(path),
            ..TrainArgs::default()
        };
        let error = format!("{:#}", args.with_file().unwrap_err());
        assert!(error.contains("learning_rat"), "{error}");
    }

    #[test]
    fn a_file_of_another_program_is_read() {
        let (_file, path) = file(
            "model_name_or_path: m\nstage: sft\ndo_train: true\nfinetuning_type: oft\n\
             oft_target: all\nquantization_bit: 4\ncutoff_len: 64\noutput_dir: o\n\
             per_device_train_batch_size: 1\nnum_train_epochs: 2.0\nlr_scheduler_type: cosine\n\
             warmup_ratio: 0.1\nbf16: true\nddp_timeout: 180\noptim: adamw_torch\n\
             lr_scheduler_kwargs: {num_cycles: 1}\nreport_to: none\n",
        );
        let args = TrainArgs {
            config: Some(path),
            ..TrainArgs::default()
        };
        let args = args.with_file().unwrap();
        let config = args.training.config().unwrap();
        assert_eq!((config.batch_size, config.num_epochs), (1, 2.0));
        assert_eq!(config.warmup_ratio, 0.1);
        assert_eq!(config.lr_scheduler_kwargs.num_cycles, Some(1.0));
        assert_eq!(args.load.load_in_4bit, Some(true));
        assert_eq!(args.training.activation_dtype.as_deref(), Some("bf16"));
        assert_eq!(args.compute_dtype.as_deref(), Some("auto"));
        for (text, says) in [
            ("finetuning_type: lora\n", "`finetuning-type: lora`"),
            ("cutoff_len: 1\nmax_seq_length: 2\n", "given twice"),
            ("target_modules: [q_proj, 5]\n", "expected a text, found 5"),
            ("columns: {prompt: 5}\n", "expected a text, found 5"),
        ] {
            let (_file, path) = file(text);
            let args = TrainArgs {
                config: Some(path),
                ..TrainArgs::default()
            };
            let error = format!("{:#}", args.with_file().unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
