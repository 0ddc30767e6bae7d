//! What can go wrong in training, evaluation and generation.

use std::path::PathBuf;

use crate::tokenizer::TokenizerError;

/// Why a training run or an evaluation ended without a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file, an adapter or the model; see there.
    #[error(transparent)]
    Core(#[from] qoft_core::Error),
    /// A setting has an impossible value.
    #[error("training setting `{key}`: {reason}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The model has nothing to train.
    #[error("the model has no adapter `{0}`, so there is nothing to train")]
    NoAdapter(String),
    /// No label of the data can be predicted.
    #[error("the data has no label to predict")]
    NothingToPredict,
    /// A row is longer than the model can compute.
    #[error("a row of the data has {tokens} tokens, but the model has positions for {limit} only")]
    RowTooLong {
        /// Tokens of the longest row.
        tokens: usize,
        /// The model's positions.
        limit: usize,
    },
    /// The training diverged. Nothing of this step is kept.
    #[error(
        "step {step}: the {what} is {value}; a smaller learning rate or max_grad_norm may help"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: usize,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A checkpoint cannot be continued.
    #[error("cannot resume from {}: {reason}", path.display())]
    Resume {
        /// The checkpoint folder or its file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The output folder has a checkpoint that the run would have to replace.
    #[error(
        "{} is from a later step than the one the run starts at; remove it or choose another \
         output folder",
        path.display()
    )]
    LaterCheckpoint {
        /// The checkpoint folder.
        path: PathBuf,
    },
    /// The curve of the losses cannot be drawn.
    #[error("cannot draw the losses: {0}")]
    Plot(String),
}

/// Why no text was generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Ids could not be turned into text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An option has an impossible value.
    #[error("generation option `{key}`: {reason}")]
    Option {
        /// The option.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// There is nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The prompt has an id that the model does not know.
    #[error("the prompt has token id {id}, but the model knows {vocab_size} ids only")]
    UnknownId {
        /// The id.
        id: u32,
        /// The size of the model's vocabulary.
        vocab_size: usize,
    },
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens, but the model is made for at most {limit}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The model's `max_position_embeddings`.
        limit: usize,
    },
    /// The model computed values that are no probabilities.
    #[error("token {position}: the model's output is not a number")]
    NotFinite {
        /// Position of the token that was to be chosen.
        position: usize,
    },
}
