//! Options of `generate`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::{ChoiceArgs, ModelArgs};

/// Options of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The text to continue.
    #[arg(long, required_unless_present = "prompts", conflicts_with = "prompts")]
    pub prompt: Option<String>,
    /// A data file with texts to continue: rows with `prompt`, or with `messages` for the chat template.
    /// Each becomes a line of JSON.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Prompts of the file that are continued together.
    #[arg(long, default_value = "8", requires = "prompts")]
    pub batch_size: NonZeroUsize,
    /// Put the prompt into the checkpoint's chat template, as a user's message.
    #[arg(long)]
    pub chat: bool,
    /// Chat template, in place of the model's: a file, a name among several of the model, or `alpaca`,
    /// `chatml`, `llama3`, `mistral`, `vicuna` or `zephyr`.
    #[arg(long, value_name = "FILE|NAME")]
    pub chat_template: Option<String>,
    /// How tokens are chosen.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Seed of the sampling.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Print one JSON object with the text and the times, once all of it is there.
    #[arg(long)]
    pub json: bool,
}
