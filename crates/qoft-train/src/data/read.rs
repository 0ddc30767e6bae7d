//! Reading data files row by row.

#[cfg(feature = "parquet")]
mod parquet;
mod table;

use std::fmt;
use std::io::{BufRead, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::error::{DataError, RowError};
use super::format::DataFormat;
use super::json::{parse, parse_stream, syntax_error, without_words};
use super::place::RowNumber;
use super::source::{Kind, Opened, io_error, open};

/// The most bytes of a line: what is packed may unpack to any length.
const LINE: usize = 1 << 28;

/// What a file has for a row.
#[derive(Debug)]
pub(super) enum Raw {
    /// JSON that is not read yet.
    Json(String),
    /// A row.
    Value(Value),
    /// A row of a table, where lists and the like may be written as texts.
    Cells(Map<String, Value>),
    /// A text.
    Text(String),
}

/// What is done with each row; it may be enough.
pub(super) type Take<'a> =
    dyn FnMut(RowNumber, Result<Raw, RowError>) -> Result<ControlFlow<()>, DataError> + 'a;

/// Hands the rows of a data file to `take`, in order.
pub(super) fn read_rows(path: &Path, take: &mut Take<'_>) -> Result<(), DataError> {
    let Opened { kind, content } = open(path)?;
    let reader = Reader { path, take };
    match kind {
        Kind::JsonLines => reader.json_lines(content),
        Kind::Json => {
            let text = reader.text(content)?;
            reader.json(&text)
        }
        Kind::Text => {
            let text = reader.text(content)?;
            reader.paragraphs(&text)
        }
        Kind::Table { delimiter } => table::rows(reader, content, delimiter),
        #[cfg(feature = "parquet")]
        Kind::Parquet => parquet::rows(reader),
    }
}

/// A file and what is done with its rows.
pub(super) struct Reader<'a, 'v> {
    path: &'a Path,
    take: &'a mut Take<'v>,
}

impl Reader<'_, '_> {
    fn json_lines(self, mut lines: impl BufRead) -> Result<(), DataError> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = (&mut lines)
                .take(LINE as u64 + 1)
                .read_until(b'\n', &mut line);
            if read.map_err(|error| io_error(self.path, error))? == 0 {
                break;
            }
            if line.len() > LINE {
                let error = RowError::LongLine { limit: LINE };
                return self.refuse(RowNumber::Line(number), error);
            }
            let row = line.trim_ascii();
            let row = row.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(row);
            if row.is_empty() {
                continue;
            }
            let row = match std::str::from_utf8(row) {
                Ok(row) => Ok(Raw::Json(row.to_owned())),
                Err(_) => Err(RowError::NotUtf8),
            };
            if (self.take)(RowNumber::Line(number), row)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn json(self, text: &str) -> Result<(), DataError> {
        let start = text.trim_start();
        let first_line = start.lines().next().unwrap_or_default();
        if start.starts_with('[') {
            return self.elements(start, line_of(text, text.len() - start.len()));
        }
        if let Ok(first) = parse(first_line)
            && nested_rows(&first).is_empty()
        {
            return self.json_lines(text.as_bytes());
        }
        if start.is_empty() {
            return Ok(());
        }
        let (mut rows, error) = parse_stream(text);
        if let [only] = &mut rows[..]
            && error.is_none()
        {
            match nested_rows(only)[..] {
                [] => {}
                [key] => {
                    if let Some(Value::Array(nested)) = only.get_mut(key).map(Value::take) {
                        rows = nested;
                    }
                }
                [first, second, ..] => {
                    let error = RowError::SeveralLists { first, second };
                    return self.refuse(RowNumber::Element(1), error);
                }
            }
        }
        for (index, row) in rows.into_iter().enumerate() {
            let row = Ok(Raw::Value(row));
            if (self.take)(RowNumber::Element(index + 1), row)?.is_break() {
                return Ok(());
            }
        }
        match error {
            Some(error) => self.refuse(RowNumber::Line(error.line()), syntax_error(&error)),
            None => Ok(()),
        }
    }

    /// The elements of an array, one after another.
    fn elements(self, text: &str, first_line: usize) -> Result<(), DataError> {
        let replaced = without_words(text);
        let mut parser = serde_json::Deserializer::from_str(replaced.as_deref().unwrap_or(text));
        let mut end = None;
        let elements = Elements {
            take: &mut *self.take,
            end: &mut end,
        };
        let read = elements.deserialize(&mut parser);
        match (end, read.and_then(|()| parser.end())) {
            (Some(end), _) => end,
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => {
                let line = first_line - 1 + error.line();
                self.refuse(RowNumber::Line(line), syntax_error(&error))
            }
        }
    }

    fn paragraphs(self, text: &str) -> Result<(), DataError> {
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
                let row = Ok(Raw::Text(std::mem::take(&mut paragraph)));
                if (self.take)(RowNumber::Line(first_line), row)?.is_break() {
                    break;
                }
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

    fn error(&self, place: RowNumber, reason: RowError) -> DataError {
        DataError::Row {
            path: self.path.to_owned(),
            place,
            reason,
        }
    }

    /// What is wrong after the rows that were read.
    fn refuse(self, place: RowNumber, reason: RowError) -> Result<(), DataError> {
        (self.take)(place, Err(reason)).map(|_| ())
    }
}

/// Keys under which one object has all rows.
const NESTED: [&str; 5] = ["train", "data", "rows", "examples", "instances"];

/// The keys under which the only value of a file has rows, unless it is a row itself.
fn nested_rows(value: &Value) -> Vec<&'static str> {
    let Some(fields) = value.as_object() else {
        return Vec::new();
    };
    let is_rows = |key: &&str| match fields.get(*key).and_then(Value::as_array) {
        Some(rows) => !rows.is_empty() && rows.iter().all(Value::is_object),
        None => false,
    };
    match DataFormat::of(fields) {
        Some(_) => Vec::new(),
        None => NESTED.into_iter().filter(is_rows).collect(),
    }
}

/// The line of the byte `at`, from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].bytes().filter(|&byte| byte == b'\n').count()
}

/// Takes the elements of an array while they are read.
struct Elements<'a, 'v> {
    take: &'a mut Take<'v>,
    /// Why no more elements are wanted.
    end: &'a mut Option<Result<(), DataError>>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(row) = elements.next_element()? {
            number += 1;
            *self.end = match (self.take)(RowNumber::Element(number), Ok(Raw::Value(row))) {
                Ok(ControlFlow::Continue(())) => continue,
                Ok(ControlFlow::Break(())) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            };
            return Err(A::Error::custom("no more rows are wanted"));
        }
        Ok(())
    }
}

/// Some editors put it at the start of a file; it is no part of the text.
const BYTE_ORDER_MARK: &str = "\u{FEFF}";
