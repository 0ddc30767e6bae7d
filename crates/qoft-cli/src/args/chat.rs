//! Options of `chat`.

use clap::Args;

use super::{ChoiceArgs, ModelArgs};

/// Options of `chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// What the system says before the first message.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
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
}
