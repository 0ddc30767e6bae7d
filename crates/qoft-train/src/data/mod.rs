//! Training and evaluation data: files of rows, read into examples of token ids and labels.
//!
//! A file ends in `.jsonl` (one JSON row on each line), `.json` (the same, rows over several
//! lines, or one array of rows) or `.txt` (texts with blank lines between them). What a JSON row
//! may hold is described at [`Row::from_json`]. Rows become tokens so:
//!
//! - Texts get the special tokens that `tokenizer.json` adds and, unless it is there already, the
//!   token that ends a text. All of it is learned.
//! - A prompt and its completion are one text; only the completion and the end are learned.
//! - Messages are rendered by the model's chat template, which writes all special tokens itself.
//!   The assistant's turns with their closing mark are learned.
//! - Token ids are used as they are. Padding at the end, where `attention_mask` is 0, is dropped.
//! - What a row's masks and weights leave out is not learned.
//!
//! Data for training and for evaluation are treated alike.

mod batch;
mod dataset;
mod encode;
mod error;
mod json;
mod read;
mod row;
mod source;

pub use batch::{Batch, Batches, Order};
pub use dataset::{Dataset, DatasetOptions, DatasetReport};
pub use encode::{Example, IGNORED};
pub use error::{DataError, RowError, RowNumber};
pub use row::Row;
