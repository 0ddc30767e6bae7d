//! What can go wrong in training, evaluation and generation.

use std::fmt;
use std::path::PathBuf;

use crate::group::GroupError;
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
    /// The state of the optimizer is not as it left it.
    #[error("the state of the optimizer: {0}")]
    Optimizer(String),
    /// No label of the data can be predicted.
    #[error("the data has no label to predict")]
    NothingToPredict,
    /// A row is longer than the model can compute.
    #[error("{row} has {tokens} tokens, but the model has positions for {limit} only")]
    RowTooLong {
        /// The row.
        row: String,
        /// Tokens of the longest row.
        tokens: usize,
        /// The model's positions.
        limit: usize,
    },
    /// The training diverged. Nothing of this step is kept.
    #[error(transparent)]
    NotFinite(Box<NotFinite>),
    /// The loss on evaluation data is infinite or not a number.
    #[error(
        "{}the loss on the evaluation data is {loss}: model and adapters give values that are \
         infinite or not a number on it",
        step.map(|step| format!("step {step}: ")).unwrap_or_default()
    )]
    EvaluationNotFinite {
        /// The step of the training after which the evaluation was.
        step: Option<usize>,
        /// The loss.
        loss: f64,
    },
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    /// The processes that compute together cannot go on.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// What was trained could not be written to its place.
    #[error(
        "{}: cannot be written: {source}{}",
        folder.display(),
        rescued.as_ref().map(|rescued| format!("; what was trained is in {}", rescued.display()))
            .unwrap_or_default()
    )]
    NotSaved {
        /// Where it should be.
        folder: PathBuf,
        /// Why it is not there.
        source: Box<qoft_core::Error>,
        /// Where it is instead.
        rescued: Option<PathBuf>,
    },
    /// A checkpoint cannot be continued.
    #[error("cannot resume from {}: {reason}", path.display())]
    Resume {
        /// The checkpoint folder or its file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The weights of an adapter are not those of the adapter that trains.
    #[error("cannot begin with the weights of {}: {reason}", path.display())]
    Weights {
        /// The adapter's folder.
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

/// Rows of the data that an error names.
const NAMED_ROWS: usize = 8;

/// [`TrainError::Config`] about a key.
pub(crate) fn invalid(key: &'static str, reason: impl Into<String>) -> TrainError {
    TrainError::Config {
        key,
        reason: reason.into(),
    }
}

/// A step with a loss, a gradient or a parameter that is infinite or not a number.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotFinite {
    /// The step, counted from 1.
    pub step: usize,
    /// `loss`, `gradient norm` or `update`.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
    /// Where it comes from, in words that name a layer or a parameter.
    pub source: String,
    /// The batch of the step, counted from 1, and the batches of a step; none where it is all of
    /// them.
    pub batch: Option<(usize, usize)>,
    /// The rows of that batch, or of all, by their places in the data.
    pub rows: Vec<String>,
    /// Whether anything had changed in the adapter before this step.
    pub trained: bool,
    /// Where the last good adapter was saved, and the steps that it is after.
    pub saved: Option<(PathBuf, usize)>,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, what, .. } = self;
        write!(f, "step {step}: the {what} is {}; ", self.value)?;
        write!(f, "it comes from {}, ", self.source)?;
        if let Some((batch, batches)) = self.batch {
            write!(f, "in batch {batch} of {batches}, ")?;
        }
        let named = self.rows.len().min(NAMED_ROWS);
        write!(
            f,
            "with these rows of the data: {}",
            self.rows[..named].join(", ")
        )?;
        if self.rows.len() > named {
            write!(f, " and {} more", self.rows.len() - named)?;
        }
        f.write_str("; ")?;
        f.write_str(match self.trained {
            true => "a smaller learning rate or max_grad_norm may help",
            false => {
                "nothing was trained before, so the model itself, the adapters below, or where the \
                 adapter starts give such values"
            }
        })?;
        match &self.saved {
            None => Ok(()),
            Some((folder, steps)) => write!(
                f,
                "; the adapter as it was after {steps} steps is in {}",
                folder.display()
            ),
        }
    }
}

impl std::error::Error for NotFinite {}

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
    /// A file that says how text is generated cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
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
