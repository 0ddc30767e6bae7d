//! From data files to examples: rows are read one after another, and become tokens on all threads.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::cache::CacheFile;
use super::data_row::DataRow;
use super::dataset::Rows;
use super::encode::{EncodedRow, Encoder};
use super::error::{DataError, RowError, RowNumber};
use super::format::DataFormat;
use super::json::{parse, syntax_error};
use super::options::{DatasetOptions, Overlong};
use super::read::{Raw, read_rows};
use super::source::files;
use crate::tokenizer::Tokenizer;

/// Rows that become tokens at the same time; so many of them are in memory as texts.
const TOGETHER: usize = 1024;

impl<R: DataRow> Rows<R> {
    /// As [`Self::load`], but what was read before is read from the folder `cache`, and what was not is
    /// written there. A damaged file is made again. What goes wrong with the folder is handed to
    /// `warning`.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_cached(
        path: &Path,
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
        cache: &Path,
        progress: Option<&mut dyn FnMut(usize)>,
        warning: &mut dyn FnMut(&str),
    ) -> Result<Self, DataError> {
        let file = CacheFile::new::<R>(cache, &files(path)?, tokenizer, options);
        if let Some(dataset) = file.as_ref().and_then(CacheFile::read::<R>) {
            return Ok(dataset);
        }
        let dataset = Self::load(path, tokenizer, options, progress)?;
        if let Some(Err(error)) = file.map(|file| file.write(&dataset)) {
            let folder = cache.display();
            warning(&format!("{folder}: tokens cannot be kept there: {error}"));
        }
        Ok(dataset)
    }

    /// Reads the data file `path`, or the data files of the folder `path`; see
    /// [the module](super) for what they may hold.
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
        let encoder = Encoder::new(tokenizer, options);
        let mut all = Self::new([]);
        for file in files(path)? {
            let left = options.max_rows.map(NonZeroUsize::get);
            let left = left.map(|most| most.saturating_sub(all.report.rows));
            if left == Some(0) {
                break;
            }
            let mut loading = Loading {
                path: &file,
                encoder: &encoder,
                options,
                waiting: Vec::new(),
                dataset: Self::new([]),
                progress: progress.as_deref_mut(),
                before: all.report.rows,
                left,
            };
            read_rows(&file, &mut |place, row| loading.take(place, row))?;
            loading.encode()?;
            let Self {
                examples,
                mut report,
                ..
            } = loading.dataset;
            if file != path {
                let name = file.strip_prefix(path).unwrap_or(&file);
                let name = name.display().to_string();
                let places = report.unpredictable.iter_mut();
                places.for_each(|place| place.file = Some(name.clone()));
            }
            all.examples.extend(examples);
            all.report.add(&report);
        }
        all.check(path)?;
        Ok(all)
    }
}

/// A file on its way.
struct Loading<'a, 'p, R> {
    path: &'a Path,
    encoder: &'a Encoder<'a>,
    options: &'a DatasetOptions,
    /// Rows that are no tokens yet.
    waiting: Vec<(RowNumber, Result<Raw, RowError>)>,
    dataset: Rows<R>,
    progress: Option<&'a mut (dyn FnMut(usize) + 'p)>,
    /// Rows of the files before.
    before: usize,
    /// Rows that are still wanted.
    left: Option<usize>,
}

impl<R: DataRow> Loading<'_, '_, R> {
    fn take(
        &mut self,
        place: RowNumber,
        row: Result<Raw, RowError>,
    ) -> Result<ControlFlow<()>, DataError> {
        self.waiting.push((place, row));
        let enough = self.left.is_some_and(|left| self.waiting.len() >= left);
        if enough || self.waiting.len() == TOGETHER {
            self.encode()?;
        }
        Ok(match self.left {
            Some(0) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }

    /// Turns the rows that wait into tokens.
    fn encode(&mut self) -> Result<(), DataError> {
        let waiting = std::mem::take(&mut self.waiting);
        let (encoder, options) = (self.encoder, self.options);
        let encode = |(place, row): (RowNumber, Result<Raw, RowError>)| {
            let encoded = row.and_then(|raw| encoded::<R>(raw, encoder, options));
            (place, encoded)
        };
        let rows: Vec<_> = waiting.into_par_iter().map(encode).collect();
        for (place, row) in rows {
            let row = row.and_then(|(row, format)| self.add(row, format, place));
            row.map_err(|reason| DataError::Row {
                path: self.path.to_owned(),
                place,
                reason,
            })?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        row: EncodedRow<R>,
        format: DataFormat,
        place: RowNumber,
    ) -> Result<(), RowError> {
        let dataset = &mut self.dataset;
        let tokens = row.example.longest();
        match (self.options.overlong, self.options.max_length) {
            (Overlong::Drop, Some(limit)) if tokens > limit => {
                dataset.report.dropped_rows += 1;
                return Ok(());
            }
            (Overlong::Error, Some(limit)) if tokens > limit => {
                return Err(RowError::TooLong {
                    tokens,
                    more: row.unread > 0,
                    limit,
                });
            }
            (Overlong::Truncate, Some(limit)) if row.example.is_lost(limit) => {
                dataset.report.dropped_rows += 1;
                return Ok(());
            }
            _ => {}
        }
        dataset.report.unread_bytes += row.unread;
        dataset.report.formats.add(format);
        dataset.add(row.example, self.options.max_length, Some(place));
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        if let Some(progress) = &mut self.progress {
            progress(self.before + self.dataset.report.rows);
        }
        Ok(())
    }
}

/// A row as tokens, and its format.
fn encoded<R: DataRow>(
    raw: Raw,
    encoder: &Encoder,
    options: &DatasetOptions,
) -> Result<(EncodedRow<R>, DataFormat), RowError> {
    let value = match raw {
        Raw::Text(text) => return Ok((R::encode_text(text, encoder)?, DataFormat::Text)),
        Raw::Json(text) => parse(&text).map_err(|error| syntax_error(&error))?,
        Raw::Value(value) => value,
        Raw::Cells(cells) => Value::Object(typed(cells)),
    };
    let Value::Object(mut fields) = value else {
        return Err(RowError::NotAnObject);
    };
    options.columns.apply(&mut fields)?;
    R::encode(fields, options.format, encoder)
}

/// Cells of a table that stand for numbers and truths; lists are read where they are used.
fn typed(mut cells: Map<String, Value>) -> Map<String, Value> {
    const TYPED: [&str; 7] = [
        "weight",
        "train",
        "training",
        "mask_history",
        "chat_template_kwargs",
        "label",
        "kto_tag",
    ];
    for name in TYPED {
        if let Some(cell) = cells.get_mut(name)
            && let Some(text) = cell.as_str()
        {
            let text = text.trim();
            *cell = serde_json::from_str(&text.to_ascii_lowercase())
                .or_else(|_| serde_json::from_str(text))
                .unwrap_or_else(|_| match text {
                    "" => Value::Null,
                    text => text.into(),
                });
        }
    }
    cells
}
