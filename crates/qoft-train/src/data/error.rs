//! What can be wrong with a data file.

use std::fmt;
use std::path::PathBuf;

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
    #[error("{}: data files end in .jsonl, .json or .txt", path.display())]
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

/// Where in a file a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowNumber {
    /// In this line, counted from 1.
    Line(usize),
    /// In this element of the file's JSON array, counted from 1.
    Element(usize),
}

impl fmt::Display for RowNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Element(number) => write!(f, "element {number}"),
        }
    }
}

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
        "a row needs input_ids, or messages, or prompt and completion, or text; this one has {}{}",
        list(fields),
        also_null(nulls)
    )]
    UnknownFields {
        /// The fields that the row has.
        fields: Vec<String>,
        /// The fields that are null.
        nulls: Vec<String>,
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
