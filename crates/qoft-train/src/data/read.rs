//! Reading data files row by row.

use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::Value;

use super::error::{DataError, RowError, RowNumber};
use super::json::{parse, parse_stream, syntax_error};
use super::row::Row;
use super::source::{Kind, io_error, open};

/// What is done with each row.
type Visit<'a> = dyn FnMut(Row) -> Result<(), RowError> + 'a;

/// Hands the rows of a data file to `visit`, in order.
///
/// The ending of the file's name says what it holds: `.jsonl` one JSON row on each line, `.json`
/// the same, rows over several lines or one array of rows, and `.txt` texts with blank lines
/// between them.
pub(super) fn for_each_row(path: &Path, visit: &mut Visit<'_>) -> Result<(), DataError> {
    let (kind, file) = open(path)?;
    let reader = Reader { path, visit };
    match kind {
        Kind::JsonLines => reader.json_lines(file),
        Kind::Json => {
            let text = reader.text(file)?;
            reader.json(&text)
        }
        Kind::Text => {
            let text = reader.text(file)?;
            reader.paragraphs(&text)
        }
    }
}

/// A file and what is done with its rows.
struct Reader<'a, 'v> {
    path: &'a Path,
    visit: &'a mut Visit<'v>,
}

impl Reader<'_, '_> {
    fn json_lines(mut self, mut lines: impl BufRead) -> Result<(), DataError> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = lines.read_until(b'\n', &mut line);
            if read.map_err(|error| io_error(self.path, error))? == 0 {
                break;
            }
            let row = line.trim_ascii();
            let row = row.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(row);
            if row.is_empty() {
                continue;
            }
            let row = match std::str::from_utf8(row) {
                Ok(row) => parse(row).map_err(|error| syntax_error(&error)),
                Err(_) => Err(RowError::NotUtf8),
            };
            self.row(RowNumber::Line(number), row.and_then(Row::from_json))?;
        }
        Ok(())
    }

    fn json(mut self, text: &str) -> Result<(), DataError> {
        let start = text.trim_start();
        let first_line = start.lines().next().unwrap_or_default();
        if start.starts_with('[') {
            let rows = parse(text)
                .map_err(|error| self.error(RowNumber::Line(error.line()), syntax_error(&error)))?;
            let rows = if let Value::Array(rows) = rows {
                rows
            } else {
                vec![rows]
            };
            for (index, row) in rows.into_iter().enumerate() {
                self.row(RowNumber::Element(index + 1), Row::from_json(row))?;
            }
            return Ok(());
        }
        if start.is_empty() || parse(first_line).is_ok() {
            return self.json_lines(text.as_bytes());
        }
        let (rows, error) = parse_stream(text);
        for (index, row) in rows.into_iter().enumerate() {
            self.row(RowNumber::Element(index + 1), Row::from_json(row))?;
        }
        match error {
            Some(error) => Err(self.error(RowNumber::Line(error.line()), syntax_error(&error))),
            None => Ok(()),
        }
    }

    fn paragraphs(mut self, text: &str) -> Result<(), DataError> {
        let mut paragraph = String::new();
        let mut first_line = 1;
        // The blank line at the end closes the last paragraph.
        for (index, line) in text.lines().chain([""]).enumerate() {
            if !line.trim().is_empty() {
                if paragraph.is_empty() {
                    first_line = index + 1;
                } else {
                    paragraph.push('\n');
                }
                paragraph.push_str(line);
            } else if !paragraph.is_empty() {
                let text = std::mem::take(&mut paragraph);
                self.row(RowNumber::Line(first_line), Ok(Row::Text(text)))?;
            }
        }
        Ok(())
    }

    /// The whole text of the file.
    fn text(&self, mut file: impl Read) -> Result<String, DataError> {
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes);
        read.map_err(|error| io_error(self.path, error))?;
        let mut text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
            self.error(RowNumber::Line(line), RowError::NotUtf8)
        })?;
        if text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(text)
    }

    fn row(&mut self, place: RowNumber, row: Result<Row, RowError>) -> Result<(), DataError> {
        row.and_then(|row| (self.visit)(row))
            .map_err(|reason| self.error(place, reason))
    }

    fn error(&self, place: RowNumber, reason: RowError) -> DataError {
        DataError::Row {
            path: self.path.to_owned(),
            place,
            reason,
        }
    }
}

/// Some editors put it at the start of a file; it is no part of the text.
const BYTE_ORDER_MARK: &str = "\u{FEFF}";
