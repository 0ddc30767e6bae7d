//! Options of the commands that write adapters in another form.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use qoft::MaxShardSize;

use super::{AdapterArg, CalibrationArgs, DtypeArg, LoadArgs, ModelPlace};

/// Options of `merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelPlace,
    /// An adapter folder, with a strength other than 1 if wanted; several are applied one after
    /// another.
    #[arg(long, required = true, value_name = "PATH[=STRENGTH]", value_parser = AdapterArg::parser())]
    pub adapter: Vec<AdapterArg>,
    /// The folder to write; must be new or empty.
    #[arg(long)]
    pub output: PathBuf,
    /// Write the result in this scheme with these settings, such as `gptq,bits=4,group_size=64`, in
    /// place of the one that the base model has; `qoft backends` lists those that can.
    #[arg(long, value_name = "SCHEME[,KEY=VALUE…]")]
    pub quantize: Option<String>,
    /// Write dense weights instead of quantizing again.
    #[arg(long, conflicts_with_all = ["calibration", "quantize"])]
    pub dequantize: bool,
    /// Number format of dense weights [default: f32].
    #[arg(long, value_enum, requires = "dequantize", conflicts_with_all = ["calibration", "quantize"])]
    pub dtype: Option<DtypeArg>,
    /// Print how exact each layer is, and write it to merge_report.json and merge_report.svg in
    /// the output folder.
    #[arg(long)]
    pub report: bool,
    /// A data file on which to measure the loss with the adapters and after the merge.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// What codes are chosen by.
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// The share of what the adapters change, over all layers, that has to be in the weights that
    /// are quantized again; with less nothing is written. 0 writes everything [default: 0.5].
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub min_kept: Option<f64>,
    /// Tokens that a row of the data files keeps [default: 1024].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// The most bytes in one file of tensors, such as `5GB` [default: 50GB].
    #[arg(long, value_name = "SIZE")]
    pub max_shard_size: Option<MaxShardSize>,
    /// An option of a backend, such as `bnb-8bit.int8_activations=true`.
    #[arg(long, value_name = "BACKEND.KEY=VALUE")]
    pub backend_option: Vec<String>,
    /// How the base model is read.
    #[command(flatten)]
    pub base: BaseArgs,
    /// Print one JSON object about what was written.
    #[arg(long)]
    pub json: bool,
}

/// How a dense base model is read, for adapters that were trained on one that was quantized while it
/// was loaded.
#[derive(Debug, Args)]
#[command(next_help_heading = "Quantizing a dense base model as the training did")]
pub struct BaseArgs {
    /// Read a dense base model in this scheme, as `--quantize` did in the training.
    #[arg(long, value_name = "SCHEME[,KEY=VALUE…]")]
    pub load_in: Option<String>,
    /// Other ways to say it.
    #[command(flatten)]
    pub load: LoadArgs,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err("expected a share from 0 to 1".to_owned()),
    }
}

/// Options of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The form to write.
    #[arg(long, value_enum)]
    pub to: ExportForm,
    /// The largest rank of a layer's change, in a LoRA.
    #[arg(long, required_if_eq("to", "lora"))]
    pub rank: Option<NonZeroUsize>,
    /// The type of numbers in a GGUF file, by the names of llama.cpp's tools: `f32`, `f16`, `bf16`,
    /// `q8_0`, `q4_0`, `q4_k_m`, `q6_k` and others; `auto` is `bf16` for a model that has it and `f16`
    /// for others [default: auto].
    #[arg(long, value_name = "TYPE")]
    pub gguf_type: Option<String>,
    /// The model.
    #[command(flatten)]
    pub model: ModelPlace,
    /// An adapter folder, with a strength other than 1 if wanted; several are applied one after
    /// another. A GGUF file can be one of the model alone.
    #[arg(
        long,
        required_if_eq("to", "lora"),
        value_name = "PATH[=STRENGTH]",
        value_parser = AdapterArg::parser()
    )]
    pub adapter: Vec<AdapterArg>,
    /// The folder to write, which must be new or empty, or the `.gguf` file.
    #[arg(long)]
    pub output: PathBuf,
    /// An option of a backend, such as `bnb-8bit.int8_activations=true`.
    #[arg(long, value_name = "BACKEND.KEY=VALUE")]
    pub backend_option: Vec<String>,
    /// How the base model is read.
    #[command(flatten)]
    pub base: BaseArgs,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// A form that an adapter, or a model with it, can be written in.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ExportForm {
    /// A LoRA as PEFT has it.
    Lora,
    /// A GGUF file for llama.cpp, with the adapters multiplied into the weights.
    Gguf,
}
