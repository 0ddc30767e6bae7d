//! A data file as examples in memory.

use std::num::NonZeroUsize;
use std::path::Path;

use super::batch::{Batches, Order};
use super::encode::{Encoder, Example};
use super::error::DataError;
use super::read::for_each_row;
use crate::tokenizer::Tokenizer;

/// How a data file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetOptions {
    /// The number of token ids that the model knows.
    pub vocab_size: usize,
    /// The number of tokens that a row keeps; a longer row loses its end.
    pub max_length: Option<usize>,
}

impl DatasetOptions {
    /// For a model that knows this number of token ids; rows are not cut.
    #[must_use]
    pub const fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            max_length: None,
        }
    }

    /// The same with a number of tokens that a row keeps, or without.
    #[must_use]
    pub const fn with_max_length(self, max_length: Option<usize>) -> Self {
        Self { max_length, ..self }
    }
}

/// What was found in a data file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetReport {
    /// The number of rows.
    pub rows: usize,
    /// The number of tokens that are kept.
    pub tokens: usize,
    /// The number of labels to predict in one epoch; see [`Example::predicted`].
    pub predicted: usize,
    /// The number of tokens of the longest row that is kept.
    pub longest: usize,
    /// The number of rows that lost their end to `max_length`.
    pub cut_rows: usize,
    /// The number of tokens that these rows lost, as far as they were read.
    pub cut_tokens: usize,
    /// The number of bytes at the ends of very long rows that were not turned into tokens, since
    /// the tokens would have been lost.
    pub unread_bytes: usize,
    /// The number of rows without a label to predict. They stay in the data, as in transformers,
    /// so that batches are the same, but nothing is learned from them.
    pub unpredictable_rows: usize,
}

/// The examples of a data file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dataset {
    /// The examples.
    pub examples: Vec<Example>,
    /// What was found in the file.
    pub report: DatasetReport,
}

impl Dataset {
    /// Examples from elsewhere than a file, all of them whole.
    #[must_use]
    pub fn new(examples: impl IntoIterator<Item = Example>) -> Self {
        let mut dataset = Self {
            examples: Vec::new(),
            report: DatasetReport::default(),
        };
        for example in examples {
            dataset.add(example, None);
        }
        dataset
    }

    /// Reads the data file `path`; see [the module](super) for what it may hold.
    ///
    /// `progress` is called after each row with the number of rows so far.
    ///
    /// # Errors
    ///
    /// [`DataError`], for the first row that cannot be used and for a file without rows or
    /// without anything to predict.
    pub fn load(
        path: &Path,
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
        mut progress: Option<&mut dyn FnMut(usize)>,
    ) -> Result<Self, DataError> {
        let encoder = Encoder::new(tokenizer, options.vocab_size, options.max_length);
        let mut dataset = Self::new([]);
        for_each_row(path, &mut |row| {
            let row = encoder.encode(row)?;
            dataset.report.unread_bytes += row.unread;
            dataset.add(row.example, options.max_length);
            if let Some(progress) = &mut progress {
                progress(dataset.report.rows);
            }
            Ok(())
        })?;
        dataset.check(path)?;
        Ok(dataset)
    }

    /// The batches of one epoch.
    #[must_use]
    pub fn batches(&self, order: Order, batch_size: NonZeroUsize) -> Batches<'_> {
        Batches::new(&self.examples, order, batch_size)
    }

    fn add(&mut self, mut example: Example, max_length: Option<usize>) {
        let length = example.input_ids.len();
        let kept = max_length.map_or(length, |max_length| length.min(max_length));
        example.input_ids.truncate(kept);
        example.labels.truncate(kept);
        let predicted = example.predicted();
        let report = &mut self.report;
        report.rows += 1;
        report.tokens += kept;
        report.predicted += predicted;
        report.longest = report.longest.max(kept);
        report.cut_rows += usize::from(kept < length);
        report.cut_tokens += length - kept;
        report.unpredictable_rows += usize::from(predicted == 0);
        self.examples.push(example);
    }

    fn check(&self, path: &Path) -> Result<(), DataError> {
        let path = path.to_owned();
        let rows = self.report.rows;
        if rows == 0 {
            return Err(DataError::Empty { path });
        }
        if self.report.predicted == 0 {
            return Err(DataError::NothingToPredict { path, rows });
        }
        Ok(())
    }
}
