//! Options of `quantize`.

use std::path::PathBuf;

use clap::Args;

use qoft::MaxShardSize;

use super::{CalibrationArgs, LoadArgs, ModelPlace};

/// Options of `quantize`.
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelPlace,
    /// The folder to write; must be new or empty.
    #[arg(long)]
    pub output: PathBuf,
    /// The scheme and its settings, such as `gptq,bits=4,group_size=64`; `qoft backends` lists those
    /// that can.
    #[arg(long, visible_aliases = ["quantize", "load-in"], value_name = "SCHEME[,KEY=VALUE…]")]
    pub scheme: Option<String>,
    /// Other ways to name the scheme.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What codes are chosen by.
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// Print how exact each layer is, and write it to quantize_report.json in the output folder.
    #[arg(long)]
    pub report: bool,
    /// A data file on which to measure the loss before and after.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Tokens that a row of the data files keeps [default: 1024].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// The most bytes in one file of tensors, such as `5GB` [default: 50GB].
    #[arg(long, value_name = "SIZE")]
    pub max_shard_size: Option<MaxShardSize>,
    /// Print one JSON object about what was written.
    #[arg(long)]
    pub json: bool,
}
