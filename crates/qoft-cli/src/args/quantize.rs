//! Options of `quantize`.

use std::path::PathBuf;

use clap::Args;

use super::LoadArgs;

/// Options of `quantize`.
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// The dense checkpoint folder.
    #[arg(long)]
    pub model: PathBuf,
    /// The folder to write; must be new or empty.
    #[arg(long)]
    pub output: PathBuf,
    /// The scheme and its settings, such as `gptq,bits=4,group_size=64`; `qoft backends` lists those
    /// that can.
    #[arg(long, visible_alias = "quantize", value_name = "SCHEME[,KEY=VALUE…]")]
    pub scheme: Option<String>,
    /// Other ways to name the scheme.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Print how exact each layer is, and write it to quantize_report.json in the output folder.
    #[arg(long)]
    pub report: bool,
    /// A data file on which to measure the loss before and after.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Tokens that a row of the data file keeps.
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Print one JSON object about what was written.
    #[arg(long)]
    pub json: bool,
}
