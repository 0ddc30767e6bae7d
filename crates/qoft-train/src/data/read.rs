//! Reading data files row by row.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::error::{DataError, RowError, RowNumber};
use super::row::Row;

/// What is done with each row.
type Visit<'a> = dyn FnMut(Row) -> Result<(), RowError> + 'a;

/// Hands the rows of a data file to `visit`, in order.
///
/// The ending of the file's name says what it holds: `.jsonl` one JSON row on each line, `.json`
/// the same or one array of rows, and `.txt` texts with blank lines between them.
pub(super) fn for_each_row(path: &Path, visit: &mut Visit<'_>) -> Result<(), DataError> {
    let reader = Reader { path, visit };
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl") => reader.json_lines(BufReader::new(
            File::open(path).map_err(|error| io_error(path, error))?,
        )),
        Some("json") => reader.json(&read_text(path)?),
        Some("txt") => reader.paragraphs(&read_text(path)?),
        _ => Err(DataError::UnknownKind {
            path: path.to_owned(),
        }),
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
            if !row.is_empty() {
                let row = serde_json::from_slice(row).map_err(|error| syntax_error(&error));
                self.row(RowNumber::Line(number), row.and_then(Row::from_json))?;
            }
        }
        Ok(())
    }

    fn json(mut self, text: &str) -> Result<(), DataError> {
        if !text.trim_start().starts_with('[') {
            return self.json_lines(text.as_bytes());
        }
        let rows: Vec<Value> = serde_json::from_str(text)
            .map_err(|error| self.error(RowNumber::Line(error.line()), syntax_error(&error)))?;
        for (index, row) in rows.into_iter().enumerate() {
            self.row(RowNumber::Element(index + 1), Row::from_json(row))?;
        }
        Ok(())
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

fn read_text(path: &Path) -> Result<String, DataError> {
    let mut text = fs::read_to_string(path).map_err(|error| io_error(path, error))?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(text)
}

fn io_error(path: &Path, source: std::io::Error) -> DataError {
    DataError::Io {
        path: path.to_owned(),
        source,
    }
}

/// What the parser says, without its line number: for a row on a line of its own it is always 1.
fn syntax_error(error: &serde_json::Error) -> RowError {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    RowError::Syntax(format!("{message} (column {})", error.column()))
}
