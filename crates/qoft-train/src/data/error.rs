//! What can be wrong with a data file.

use std::path::PathBuf;

use super::guess::{guess, guess_prompt, is_choice};
use super::place::RowNumber;
use crate::chat::ChatError;
use crate::tokenizer::TokenizerError;

/// Why a data file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path does not lead to a file of rows.
    #[error("{} {what}", path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// What it leads to, and what to do.
        what: String,
    },
    /// The name of the file does not end in a known way.
    #[error(
        "{}: data files end in .jsonl, .json, .csv, .tsv, .txt or .parquet, and may be packed \
         (.gz, .zst)",
        path.display()
    )]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// The file has no rows.
    #[error("{} has no rows", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// All rows are too long.
    #[error(
        "all {rows} rows of {} have more tokens than a row may have, and are left out",
        path.display()
    )]
    AllDropped {
        /// The file.
        path: PathBuf,
        /// The number of rows.
        rows: usize,
    },
    /// A row cannot be used.
    #[error("{}, {place}: {reason}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Where in the file the row is.
        place: RowNumber,
        /// What is wrong with it.
        reason: RowError,
    },
    /// No row has a token to predict.
    #[error(
        "none of the {rows} rows of {} has a token to predict: every label is -100, or belongs \
         to the first token, or was cut off",
        path.display()
    )]
    NothingToPredict {
        /// The file.
        path: PathBuf,
        /// The number of rows.
        rows: usize,
    },
}

/// Why data sets cannot be put together or taken apart so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MixError {
    /// A data set has no row for its share.
    #[error(
        "by the weights, data set {number} would have no row; give it a larger weight, or the \
         others smaller ones"
    )]
    NothingOf {
        /// The number of the data set, from 1.
        number: usize,
    },
    /// What is set aside is nothing or all.
    #[error("of {rows} rows {aside} would be set aside: both parts need at least one")]
    NothingLeft {
        /// Rows that would be set aside.
        aside: usize,
        /// All rows.
        rows: usize,
    },
    /// A size that is neither a share nor a number of rows.
    #[error("{size} is neither a share of the rows, above 0 and below 1, nor a number of rows")]
    ValSize {
        /// The size.
        size: f64,
    },
}

/// A picture that cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the lengths: {0}")]
pub struct PlotError(pub(super) String);

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The row is not valid JSON.
    #[error("not valid JSON: {0}")]
    Syntax(String),
    /// The row is not text in UTF-8.
    #[error("the text is not UTF-8; save the file as UTF-8 (iconv -f LATIN1 -t UTF-8, say)")]
    NotUtf8,
    /// The row is JSON but not an object.
    #[error("a row must be a JSON object")]
    NotAnObject,
    /// No complete set of known fields is there.
    #[error(
        "a row needs input_ids, or messages, or conversations, or prompt and completion, or \
         instruction and output, or text; this one has {}{}{}",
        list(fields),
        also_null(nulls),
        columns_hint(fields)
    )]
    UnknownFields {
        /// The fields that the row has.
        fields: Vec<String>,
        /// The fields that are null.
        nulls: Vec<String>,
    },
    /// The row is about preferences, where examples are learned.
    #[error(
        "the row says which answer is better: --stage dpo, orpo, simpo or kto learns from such rows; with \
         --columns completion=chosen the better answers become examples"
    )]
    OfPreferences,
    /// The row is not about preferences.
    #[error(
        "a row about preferences needs chosen and rejected, or label with an answer (prompt and \
         completion, messages, conversations, or instruction and output); this one has {}",
        list(fields)
    )]
    NoPreference {
        /// The fields that the row has.
        fields: Vec<String>,
    },
    /// A row about preferences has the weight 0.
    #[error("its weight is 0, but rows about preferences count all alike; leave it out")]
    UnlearnedPreference,
    /// There are two answers, and nothing that they answer.
    #[error(
        "there is no prompt: the answers are no whole conversations, and beside them this row has {}{}",
        list(fields),
        prompt_hint(fields)
    )]
    NoPrompt {
        /// The fields beside the answers.
        fields: Vec<String>,
    },
    /// The conversation before two answers ends with another one.
    #[error(
        "the conversation before chosen and rejected ends with an answer; its last message has to be what they \
         answer"
    )]
    AnsweredPrompt,
    /// An answer is judged, where examples are learned.
    #[error(
        "{field} says whether the answer is good: --stage kto learns from such rows; with --columns \
         rated={field} all answers become examples"
    )]
    OfJudgements {
        /// The name of the field.
        field: &'static str,
    },
    /// A message has parts that are no texts.
    #[error("message {number} has a part of the type {kind}; only texts can be learned")]
    Part {
        /// The number of the message, from 1.
        number: usize,
        /// The type.
        kind: String,
    },
    /// A row has pictures, sounds or films.
    #[error("the row has {field}, but only texts can be learned; leave such rows out")]
    Media {
        /// The name of the field.
        field: &'static str,
    },
    /// A conversation does not end with an answer.
    #[error(
        "its last message is not the assistant's, so that there is no answer to be good or bad"
    )]
    NoAnswer,
    /// A field that another one stands for is not there.
    #[error(
        "there is no field {column}, which the columns name; this row has {}",
        list(fields)
    )]
    NoColumn {
        /// The name of the field.
        column: String,
        /// The fields that the row has.
        fields: Vec<String>,
    },
    /// A row of a table has not as many cells as there are names.
    #[error("there are {found} cells, but {expected} names on the first line")]
    Cells {
        /// The cells of the row.
        found: usize,
        /// The names.
        expected: usize,
    },
    /// A message is from somebody unknown.
    #[error(
        "message {number} is from '{role}'; known are human and user, gpt, assistant, model and \
         chatgpt, system, tool and observation, and function_call"
    )]
    UnknownRole {
        /// The number of the message, from 1.
        number: usize,
        /// Whom it is from.
        role: String,
    },
    /// A message that calls a function does not say which.
    #[error(
        "message {number} is a function call, but not JSON with name and arguments, or a list of \
         such"
    )]
    FunctionCall {
        /// The number of the message, from 1.
        number: usize,
    },
    /// The row has more tokens than it may have.
    #[error("the row has {tokens} tokens{}, but {limit} are the most", if *more { " or more" } else { "" })]
    TooLong {
        /// Its tokens, as far as they were read.
        tokens: usize,
        /// Whether there are more.
        more: bool,
        /// The most that a row may have.
        limit: usize,
    },
    /// A field masks or weighs what is learned, but not in a way that is known here.
    #[error(
        "the field {field} would change what is learned, but is not understood; known are weight \
         (0 or 1), train, mask_history, and with input_ids labels, completion_mask and \
         assistant_masks"
    )]
    UnknownMask {
        /// The name of the field.
        field: &'static str,
    },
    /// A mask of token ids stands in a row without token ids.
    #[error("{field} needs input_ids, since it has one entry for each token")]
    MaskWithoutIds {
        /// The name of the mask.
        field: &'static str,
    },
    /// Some of the assistant's messages are not to be learned, where all text is.
    #[error(
        "it says which of the assistant's messages are learned, but --train-on all learns the whole \
         text; leave the option out, or the weights and masks of the messages"
    )]
    MaskedTurns,
    /// A message asks to be learned, and is not the assistant's.
    #[error(
        "message {} says that it is learned, but only the assistant's messages are: take the field \
         out, or learn whole conversations with --train-on all",
        index + 1
    )]
    LearnedTurn {
        /// The place of the message, from 0.
        index: usize,
    },
    /// Two columns of a table have one name.
    #[error("two columns are called `{name}`: give them different names")]
    SameColumns {
        /// The name.
        name: String,
    },
    /// One object has lists of rows under two names.
    #[error(
        "there are rows under `{first}` and under `{second}`: make files of them, or leave one in \
         the file"
    )]
    SeveralLists {
        /// The name of one list.
        first: &'static str,
        /// The name of the other.
        second: &'static str,
    },
    /// A quote that opens a cell is nowhere closed.
    #[error("a quote opens a cell and is never closed; a quote within a cell is written twice")]
    OpenQuote,
    /// A line is longer than rows may be.
    #[error("the line has more than {limit} bytes; a row is one line")]
    LongLine {
        /// The most bytes of a line.
        limit: usize,
    },
    /// A message of a completion has the weight 0.
    #[error(
        "a completion is learned whole, but one of its messages has the weight 0; a row with \
         messages can leave single ones out"
    )]
    UnlearnedCompletion,
    /// A field holds the wrong kind of value.
    #[error("{field} must be {expected}")]
    WrongType {
        /// The name of the field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A list runs along `input_ids` but has another length.
    #[error("{field} has {found} entries, but input_ids has {expected}")]
    Length {
        /// The name of the list.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The length of `input_ids`.
        expected: usize,
    },
    /// The row has no tokens.
    #[error("the row has no tokens")]
    NoTokens,
    /// A token id is not in the model's vocabulary.
    #[error("the token id {id} at position {position} is outside 0..{vocab_size}")]
    TokenId {
        /// The id.
        id: i64,
        /// Its position in the row, from 0.
        position: usize,
        /// The size of the model's vocabulary.
        vocab_size: usize,
    },
    /// A label is neither -100 nor in the model's vocabulary.
    #[error("the label {label} at position {position} is neither -100 nor in 0..{vocab_size}")]
    Label {
        /// The label.
        label: i64,
        /// Its position in the row, from 0.
        position: usize,
        /// The size of the model's vocabulary.
        vocab_size: usize,
    },
    /// An attention mask hides tokens that other tokens follow.
    #[error(
        "attention_mask is 0 at position {position}, before tokens where it is 1; \
         only padding at the end of a row can be left out"
    )]
    Hole {
        /// The first hidden position, from 0.
        position: usize,
    },
    /// The row's text cannot be turned into tokens.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The row's messages cannot be rendered.
    #[error(transparent)]
    Chat(#[from] ChatError),
}

fn prompt_hint(fields: &[String]) -> String {
    match guess_prompt(fields) {
        Some(columns) => format!("; --columns {columns} says which is the prompt"),
        None => String::new(),
    }
}

fn columns_hint(fields: &[String]) -> String {
    if is_choice(fields) {
        return "; questions with several answers are measured: `qoft eval` has the accuracy"
            .to_owned();
    }
    match guess(fields) {
        Some(columns) => format!("; columns can be named, here perhaps {columns}"),
        None => String::new(),
    }
}

fn also_null(nulls: &[String]) -> String {
    match nulls {
        [] => String::new(),
        [one] => format!(" ({one} is null)"),
        several => format!(" ({} are null)", several.join(", ")),
    }
}

fn list(fields: &[String]) -> String {
    if fields.is_empty() {
        "no fields".to_owned()
    } else {
        fields.join(", ")
    }
}
