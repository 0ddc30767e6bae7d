//! From data files to examples: rows are read one after another, and become tokens on all threads.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::cache::CacheFile;
use super::data_row::DataRow;
use super::dataset::{DatasetReport, Rows};
use super::encode::{EncodedRow, Encoder};
use super::error::{DataError, RowError};
use super::format::DataFormat;
use super::json::{parse, syntax_error};
use super::numbers::Numbers;
use super::options::{DatasetOptions, Overlong};
use super::origins::Origins;
use super::place::RowNumber;
use super::read::{Raw, read_rows};
use super::source::{Found, files};
use crate::tokenizer::Tokenizer;

/// Rows that become tokens at the same time; so many of them are in memory as texts.
const TOGETHER: usize = 1024;

impl<R: DataRow> Rows<R> {
    /// As [`Self::load`], but tokens are in a file of the folder `cache`, where those of what was read
    /// before are already. A damaged file is made again. What goes wrong with the folder is handed to
    /// `warning`; the tokens are in memory then.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_cached(
        path: &Path,
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
        cache: &Path,
        mut progress: Option<&mut dyn FnMut(usize)>,
        warning: &mut dyn FnMut(&str),
    ) -> Result<Self, DataError> {
        let data = DataFiles::new(path, tokenizer, options)?;
        let files = &data.found.files;
        let Some(file) = CacheFile::new::<R>(cache, files, tokenizer, options) else {
            return Self::in_memory(&data, &mut progress);
        };
        if let Some(mut rows) = file.read::<R>(files) {
            // The same content may have been read in files of other names.
            data.name_files(&mut rows.report);
            return Ok(rows);
        }
        match Self::through(&file, &data, &mut progress) {
            Ok(rows) => Ok(rows),
            Err(Stop::Data(error)) => Err(error),
            Err(Stop::Keep(error)) => {
                let folder = cache.display();
                warning(&format!("{folder}: tokens cannot be kept there: {error}"));
                Self::in_memory(&data, &mut progress)
            }
        }
    }

    /// Rows whose tokens are in `file`, where they are written as they are made.
    fn through(
        file: &CacheFile,
        data: &DataFiles,
        progress: &mut Progress,
    ) -> Result<Self, Stop<std::io::Error>> {
        let mut writer = file.create().map_err(Stop::Keep)?;
        let mut keep = |file: usize, rows: Vec<(RowNumber, R)>| {
            let mut rows = rows.iter();
            rows.try_for_each(|(place, row)| writer.add(row, file, *place))
        };
        let report = data.read(progress, &mut keep)?;
        writer.finish(report).map_err(Stop::Keep)?;
        let unread = || Stop::Keep(std::io::Error::other("they are not read again"));
        file.read(&data.found.files).ok_or_else(unread)
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
        let data = DataFiles::new(path, tokenizer, options)?;
        Self::in_memory(&data, &mut progress)
    }

    /// Rows whose tokens are in arrays that some of them share.
    fn in_memory(data: &DataFiles, progress: &mut Progress) -> Result<Self, DataError> {
        let mut all = Self::new([]);
        all.origins = Origins::of_files(&data.found.files);
        let mut keep = |file: usize, mut rows: Vec<(RowNumber, R)>| {
            let parts = rows.iter_mut().flat_map(|(_, row)| row.parts_mut());
            let mut parts: Vec<_> = parts.collect();
            Numbers::join(parts.iter_mut().map(|part| &mut part.input_ids));
            Numbers::join(parts.iter_mut().map(|part| &mut part.labels));
            for (place, row) in rows {
                all.origins.push(file, place);
                all.examples.push(row);
            }
            Ok::<(), Infallible>(())
        };
        match data.read(progress, &mut keep) {
            Ok(report) => Ok(Self { report, ..all }),
            Err(Stop::Data(error)) => Err(error),
        }
    }
}

/// What is told how many rows there are so far.
type Progress<'a, 'p> = Option<&'a mut (dyn FnMut(usize) + 'p)>;

/// What takes rows of the file with an index, and their places there.
type Keep<'a, R, E> = dyn FnMut(usize, Vec<(RowNumber, R)>) -> Result<(), E> + 'a;

/// Why data are not read to their end.
enum Stop<E> {
    /// They cannot be used.
    Data(DataError),
    /// Their tokens cannot be kept.
    Keep(E),
}

impl<E> From<DataError> for Stop<E> {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

/// A data file or a folder of them, and what becomes tokens how.
struct DataFiles<'a> {
    path: &'a Path,
    found: Found,
    encoder: Encoder<'a>,
    options: &'a DatasetOptions,
}

impl<'a> DataFiles<'a> {
    fn new(
        path: &'a Path,
        tokenizer: &'a Tokenizer,
        options: &'a DatasetOptions,
    ) -> Result<Self, DataError> {
        Ok(Self {
            path,
            found: files(path, options.split)?,
            encoder: Encoder::new(tokenizer, options),
            options,
        })
    }

    /// Says which of a folder's files are read.
    fn name_files(&self, report: &mut DatasetReport) {
        report.files.clone_from(&self.found.names);
        report.other_files.clone_from(&self.found.others);
    }

    /// Hands all rows to `keep`, some of a file at a time, which it has by its index.
    fn read<R: DataRow, E>(
        &self,
        progress: &mut Progress,
        keep: &mut Keep<R, E>,
    ) -> Result<DatasetReport, Stop<E>> {
        let mut all = DatasetReport::default();
        self.name_files(&mut all);
        for (index, file) in self.found.files.iter().enumerate() {
            let left = self.options.max_rows.map(NonZeroUsize::get);
            let left = left.map(|most| most.saturating_sub(all.rows));
            if left == Some(0) {
                break;
            }
            let mut loading = Loading {
                data: self,
                file,
                index,
                waiting: Vec::new(),
                report: DatasetReport::default(),
                keep,
                failed: None,
                progress,
                before: all.rows,
                left,
            };
            read_rows(file, &mut |place, row| loading.take(place, row))?;
            loading.encode()?;
            if let Some(error) = loading.failed {
                return Err(Stop::Keep(error));
            }
            let mut report = loading.report;
            if file != self.path {
                let name = file.strip_prefix(self.path).unwrap_or(file);
                let name = name.display().to_string();
                let places = report.unpredictable.iter_mut();
                places.for_each(|place| place.file = Some(name.clone()));
            }
            all.add(&report);
        }
        all.check(self.path)?;
        Ok(all)
    }
}

/// A file on its way.
struct Loading<'a, 'p, 'q, R, E> {
    data: &'a DataFiles<'a>,
    file: &'a Path,
    /// The index of the file.
    index: usize,
    /// Rows that are no tokens yet.
    waiting: Vec<(RowNumber, Result<Raw, RowError>)>,
    report: DatasetReport,
    keep: &'a mut Keep<'a, R, E>,
    /// Why rows are not kept.
    failed: Option<E>,
    progress: &'a mut Progress<'p, 'q>,
    /// Rows of the files before.
    before: usize,
    /// Rows that are still wanted.
    left: Option<usize>,
}

impl<R: DataRow, E> Loading<'_, '_, '_, R, E> {
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
            _ if self.failed.is_some() => ControlFlow::Break(()),
            Some(0) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }

    /// Turns the rows that wait into tokens.
    fn encode(&mut self) -> Result<(), DataError> {
        let waiting = std::mem::take(&mut self.waiting);
        let DataFiles {
            encoder, options, ..
        } = self.data;
        let encode = |(place, row): (RowNumber, Result<Raw, RowError>)| {
            let encoded = row.and_then(|raw| encoded::<R>(raw, encoder, options));
            (place, encoded)
        };
        let rows: Vec<_> = waiting.into_par_iter().map(encode).collect();
        let mut kept = Vec::with_capacity(rows.len());
        for (place, row) in rows {
            let row = row.and_then(|(row, format)| self.counted(row, format, place));
            let row = row.map_err(|reason| DataError::Row {
                path: self.file.to_owned(),
                place,
                reason,
            })?;
            kept.extend(row.map(|row| (place, row)));
        }
        if self.failed.is_none() {
            self.failed = (self.keep)(self.index, kept).err();
        }
        Ok(())
    }

    /// The row cut and counted, unless it is left out.
    fn counted(
        &mut self,
        row: EncodedRow<R>,
        format: DataFormat,
        place: RowNumber,
    ) -> Result<Option<R>, RowError> {
        let options = self.data.options;
        let EncodedRow {
            mut example,
            unread,
            lacks_call,
        } = row;
        let tokens = example.longest();
        match (options.overlong, options.max_length) {
            (Overlong::Drop, Some(limit)) if tokens > limit => {
                self.report.dropped_rows += 1;
                return Ok(None);
            }
            (Overlong::Error, Some(limit)) if tokens > limit => {
                return Err(RowError::TooLong {
                    tokens,
                    more: unread > 0,
                    limit,
                });
            }
            (Overlong::Truncate, Some(limit)) if example.is_lost(limit) => {
                self.report.dropped_rows += 1;
                return Ok(None);
            }
            _ => {}
        }
        self.report.unread_bytes += unread;
        self.report.rows_without_calls += usize::from(lacks_call);
        self.report.formats.add(format);
        self.report
            .cut(&mut example, options.max_length, Some(place));
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        if let Some(progress) = self.progress {
            progress(self.before + self.report.rows);
        }
        Ok(Some(example))
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
