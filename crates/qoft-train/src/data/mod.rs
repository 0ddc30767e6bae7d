//! Training and evaluation data: files of rows, read into examples of token ids and labels.
//!
//! A file ends in `.jsonl` (one JSON row on each line), `.json` (the same, rows over several
//! lines, one array of rows, or one under a key such as `train`), `.csv` or `.tsv` (tables with
//! their names on the first line), `.parquet` (with the feature of this name) or `.txt` (texts with
//! blank lines between them), and may be packed by gzip or zstd. A folder stands for the data files
//! in it. What a JSON row may hold is described at [`Row::from_json`]. Rows become tokens so:
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

mod answers;
mod arrangement;
mod batch;
mod cache;
mod calls;
mod columns;
mod data_row;
mod dataset;
mod encode;
mod error;
mod example;
mod fields;
mod format;
mod guess;
mod json;
mod lengths;
mod load;
mod masks;
mod mix;
mod numbers;
mod options;
mod order;
mod origins;
mod place;
mod preference;
mod read;
mod row;
mod source;
mod split;

pub use batch::{Batch, Batches};
pub use columns::Columns;
pub use data_row::DataRow;
pub use dataset::{Dataset, DatasetReport, Rows};
pub use error::{DataError, MixError, PlotError, RowError};
pub use example::{Example, IGNORED};
pub use fields::RawRow;
pub use format::{DataFormat, FormatCounts};
pub use lengths::LengthHistogram;
pub use mix::{ValSize, rows_by_weights};
pub use numbers::Numbers;
pub use options::{AnswerTokens, DatasetOptions, Overlong, TrainOn};
pub use order::Order;
pub use place::{RowNumber, RowPlace};
pub use preference::Preference;
pub use row::Row;
pub use split::Split;
