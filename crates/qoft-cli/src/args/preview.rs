//! Options of `data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DataArgs, ModelPlace, NewTokenArgs};

/// What is done with data alone.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Show rows as tokens, what is learned of them, and how long all rows are.
    Preview(PreviewArgs),
}

/// Options of `data preview`.
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelPlace,
    /// A data file, or a folder of some; several with weights are mixed.
    #[arg(long, required = true, value_name = "PATH[:WEIGHT]")]
    pub data: Vec<String>,
    /// How it is read.
    #[command(flatten)]
    pub reading: DataArgs,
    /// Tokens that the vocabulary gets.
    #[command(flatten)]
    pub new_tokens: NewTokenArgs,
    /// What is learned: `sft`, `dpo`, `orpo`, `kto` or `simpo`, as in a training [default: sft].
    #[arg(long)]
    pub stage: Option<String>,
    /// Tokens that a row keeps [default: 1024].
    #[arg(long)]
    pub max_length: Option<usize>,
    /// Rows that are shown.
    #[arg(short = 'n', long = "rows", default_value_t = 3)]
    pub rows: usize,
    /// Write a picture of the lengths into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}
