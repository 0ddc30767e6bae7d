//! Examples in memory.

use std::num::NonZeroUsize;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::arrangement::{Arrangement, best_fit};
use super::batch::Batches;
use super::data_row::DataRow;
use super::error::DataError;
use super::example::Example;
use super::format::FormatCounts;
use super::order::Order;
use super::origins::Origins;
use super::place::{RowNumber, RowPlace};

/// Rows that are named in a report.
const NAMED: usize = 5;

/// What was found in a data file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatasetReport {
    /// The names of the files that were read, where they are a folder's.
    pub files: Vec<String>,
    /// The names of the folder's data files that are for something else, as for tests.
    pub other_files: Vec<String>,
    /// The number of rows.
    pub rows: usize,
    /// The forms that they had.
    pub formats: FormatCounts,
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
    /// The number of rows that were left out since they were too long. They are none of `rows`.
    pub dropped_rows: usize,
    /// The number of bytes at the ends of very long rows that were not turned into tokens, since
    /// the tokens would have been lost.
    pub unread_bytes: usize,
    /// The number of rows without a label to predict. They stay in the data, as in transformers,
    /// so that batches are the same, but nothing is learned from them.
    pub unpredictable_rows: usize,
    /// Where the first of them are.
    pub unpredictable: Vec<RowPlace>,
    /// The number of conversations with a call of a function that the chat template does not write.
    pub rows_without_calls: usize,
}

impl DatasetReport {
    /// Adds what was found in another file.
    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        for (format, rows) in other.formats.iter() {
            self.formats.add_rows(format, rows);
        }
        self.tokens += other.tokens;
        self.predicted += other.predicted;
        self.longest = self.longest.max(other.longest);
        self.cut_rows += other.cut_rows;
        self.cut_tokens += other.cut_tokens;
        self.dropped_rows += other.dropped_rows;
        self.unread_bytes += other.unread_bytes;
        self.unpredictable_rows += other.unpredictable_rows;
        self.rows_without_calls += other.rows_without_calls;
        let named = self.unpredictable.len();
        let more = other.unpredictable.iter().take(NAMED - named.min(NAMED));
        self.unpredictable.extend(more.cloned());
    }

    /// Cuts a row to `max_length` tokens and counts it.
    pub(super) fn cut(
        &mut self,
        row: &mut impl DataRow,
        max_length: Option<usize>,
        place: Option<RowNumber>,
    ) {
        let length = row.tokens();
        row.truncate(max_length.unwrap_or(usize::MAX));
        let kept = row.tokens();
        let predicted = row.predicted();
        self.rows += 1;
        self.tokens += kept;
        self.predicted += predicted;
        self.longest = self.longest.max(row.longest());
        self.cut_rows += usize::from(kept < length);
        self.cut_tokens += length - kept;
        self.unpredictable_rows += usize::from(predicted == 0);
        if predicted == 0 && self.unpredictable.len() < NAMED {
            self.unpredictable.extend(place.map(RowPlace::from));
        }
    }

    /// Fails if there is nothing to learn in the data that was read from `path`.
    pub(super) fn check(&self, path: &Path) -> Result<(), DataError> {
        let path = path.to_owned();
        let rows = self.rows;
        if rows == 0 && self.dropped_rows > 0 {
            let rows = self.dropped_rows;
            return Err(DataError::AllDropped { path, rows });
        }
        if rows == 0 {
            return Err(DataError::Empty { path });
        }
        if self.predicted == 0 {
            return Err(DataError::NothingToPredict { path, rows });
        }
        Ok(())
    }
}

/// The examples of a data file, in its order.
pub type Dataset = Rows<Example>;

/// The rows of a data file as tokens, in its order.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rows<R> {
    /// The examples, or what holds several of them.
    pub examples: Vec<R>,
    /// What was found in the file.
    pub report: DatasetReport,
    pub(super) origins: Origins,
    pub(super) arrangement: Arrangement,
}

/// Rows are the same wherever they come from.
impl<R: PartialEq> PartialEq for Rows<R> {
    fn eq(&self, other: &Self) -> bool {
        self.examples == other.examples
            && self.report == other.report
            && self.arrangement == other.arrangement
    }
}

impl<R: Eq> Eq for Rows<R> {}

impl<R: DataRow> Rows<R> {
    /// Examples from elsewhere than a file, all of them whole.
    #[must_use]
    pub fn new(examples: impl IntoIterator<Item = R>) -> Self {
        let mut report = DatasetReport::default();
        let count = |mut example| {
            report.cut(&mut example, None, None);
            example
        };
        Self {
            examples: examples.into_iter().map(count).collect(),
            report,
            origins: Origins::default(),
            arrangement: Arrangement::Rows,
        }
    }

    /// The same with rows of about the same length in each batch, where the order is free.
    #[must_use]
    pub fn grouped_by_length(self) -> Self {
        Self {
            arrangement: Arrangement::ByLength,
            ..self
        }
    }

    /// The number of rows, of which a batch has some.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.arrangement.rows(self.examples.len())
    }

    /// The indices of the examples of each batch.
    #[must_use]
    pub fn batch_examples(&self, order: Order, batch_size: NonZeroUsize) -> Vec<Vec<usize>> {
        let length = |index: usize| self.examples[index].tokens();
        let count = self.examples.len();
        self.arrangement.batches(count, &length, order, batch_size)
    }

    /// Names the rows of some examples by their files and their places there, as far as these are known.
    #[must_use]
    pub fn row_names(&self, examples: &[usize]) -> Vec<String> {
        self.origins.names(examples)
    }

    /// Tells apart data whose examples are the same but computed otherwise.
    pub(crate) fn arrangement_content(&self) -> String {
        match &self.arrangement {
            Arrangement::Rows => String::new(),
            Arrangement::ByLength => "grouped by length".to_owned(),
            Arrangement::Packed { capacity, .. } => format!("packed into {capacity}"),
        }
    }
}

impl Dataset {
    /// The same with several examples in each row: as many as `capacity` tokens hold, by best fit, or one
    /// that is longer. In batches they are one after another, without padding, and positions begin
    /// anew with each of them; see [`Batch::sequences`](super::Batch::sequences).
    #[must_use]
    pub fn packed(self, capacity: usize) -> Self {
        let rows = self.best_fit(capacity);
        Self {
            arrangement: Arrangement::Packed { capacity, rows },
            ..self
        }
    }

    /// How many rows it has when it is [`Self::packed`].
    #[must_use]
    pub fn packed_rows(&self, capacity: usize) -> usize {
        self.best_fit(capacity).len()
    }

    fn best_fit(&self, capacity: usize) -> Vec<Vec<usize>> {
        let lengths = self.examples.iter().map(|example| example.input_ids.len());
        best_fit(&lengths.collect::<Vec<_>>(), capacity)
    }

    /// Whether several examples are in one row.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        matches!(self.arrangement, Arrangement::Packed { .. })
    }

    /// The batches of one epoch.
    #[must_use]
    pub fn batches(&self, order: Order, batch_size: NonZeroUsize) -> Batches<'_> {
        let batches = self.batch_examples(order, batch_size);
        Batches::new(&self.examples, batches, self.is_packed())
    }
}
