//! How data is read.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::columns::Columns;
use super::format::DataFormat;
use super::split::Split;

/// Which of the assistant's messages are learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TrainOn {
    /// All of them; of a prompt and its completion the completion.
    #[default]
    Assistant,
    /// The last one of each conversation.
    Last,
    /// All of the text, also what others say.
    All,
}

/// What becomes of rows that have more tokens than they may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Overlong {
    /// They lose their end.
    #[default]
    Truncate,
    /// They are left out.
    Drop,
    /// They are an error.
    Error,
}

/// How the prompt and the answers of preferences become tokens, as the trainers of TRL have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerTokens {
    /// Of `DPOTrainer` and `KTOTrainer`: texts get the special tokens that `tokenizer.json` adds, and an
    /// answer that is a text ends with the token for the end of a text.
    #[default]
    AsTexts,
    /// Of `CPOTrainer` and `ORPOTrainer`: each row begins with the token for the beginning of a text, if
    /// there is one, and ends with that for its end, also behind what a chat template wrote.
    WithEnds,
}

/// How data is read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetOptions {
    /// The number of token ids that the model knows.
    pub vocab_size: usize,
    /// The most tokens of a row.
    pub max_length: Option<usize>,
    /// What becomes of longer rows.
    pub overlong: Overlong,
    /// The form of the rows.
    pub format: DataFormat,
    /// Fields of the rows under other names.
    pub columns: Columns,
    /// What is learned of a conversation.
    pub train_on: TrainOn,
    /// The most rows that are read, from the front.
    pub max_rows: Option<NonZeroUsize>,
    /// How the prompt and the answers of preferences become tokens.
    pub answer_tokens: AnswerTokens,
    /// What the files of a folder are read for.
    pub split: Split,
}

impl DatasetOptions {
    /// For a model that knows this number of token ids; rows of any form and length, as they are.
    #[must_use]
    pub const fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            max_length: None,
            overlong: Overlong::Truncate,
            format: DataFormat::Auto,
            columns: Columns::new(),
            train_on: TrainOn::Assistant,
            max_rows: None,
            answer_tokens: AnswerTokens::AsTexts,
            split: Split::Train,
        }
    }

    /// The same with a number of tokens that a row keeps, or without.
    #[must_use]
    pub fn with_max_length(self, max_length: Option<usize>) -> Self {
        Self { max_length, ..self }
    }
}
