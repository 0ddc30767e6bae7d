//! Tables of texts: comma-separated values, and values with tabs between them.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{BufRead, Read};
use std::rc::Rc;

use csv::{ErrorKind, ReaderBuilder, Trim};
use serde_json::{Map, Value};

use super::{Raw, Reader};
use crate::data::error::{DataError, RowError};
use crate::data::place::RowNumber;
use crate::data::source::io_error;

/// Hands on the rows below the line with the names.
pub(super) fn rows(
    reader: Reader<'_, '_>,
    mut content: impl BufRead,
    delimiter: u8,
) -> Result<(), DataError> {
    let path = reader.path;
    let io = |error| io_error(path, error);
    let newlines = usize::from(has_carriage_returns(&mut content).map_err(io)?);
    let line = |position: Option<&csv::Position>| {
        let (line, byte) = position.map_or((1, 0), |at| (at.line() as usize, at.byte()));
        // The crate counts the second byte of a line's end to the next line.
        RowNumber::Line(line + if byte > 0 { newlines } else { 0 })
    };
    let end = Rc::new(Cell::new(End::default()));
    let content = Watched {
        content,
        end: end.clone(),
    };
    let mut last_place = RowNumber::Line(1);
    let mut is_open = false;
    let mut table = ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .trim(Trim::None)
        .from_reader(content);
    let mut names: Option<Vec<String>> = None;
    for record in table.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let place = line(error.position());
                return match error.into_kind() {
                    ErrorKind::Io(error) => Err(io(error)),
                    ErrorKind::Utf8 { .. } => reader.refuse(place, RowError::NotUtf8),
                    ErrorKind::UnequalLengths {
                        expected_len, len, ..
                    } => reader.refuse(
                        place,
                        RowError::Cells {
                            found: len as usize,
                            expected: expected_len as usize,
                        },
                    ),
                    _ => reader.refuse(place, RowError::Syntax("no table of texts".into())),
                };
            }
        };
        let Some(names) = &names else {
            let trimmed = record.iter().map(|name| {
                let name = name.strip_prefix(super::BYTE_ORDER_MARK).unwrap_or(name);
                name.trim().to_owned()
            });
            let found: Vec<String> = trimmed.collect();
            if let Some(error) = same_names(found.iter()) {
                return reader.refuse(RowNumber::Line(1), error);
            }
            names = Some(found);
            continue;
        };
        let place = line(record.position());
        is_open = record
            .iter()
            .next_back()
            .is_some_and(|cell| cell.contains('\n'));
        last_place = place;
        let cells = names.iter().zip(&record);
        let cells = cells.map(|(name, cell)| (name.clone(), Value::from(cell)));
        let row = Raw::Cells(cells.collect::<Map<String, Value>>());
        if (reader.take)(place, Ok(row))?.is_break() {
            return Ok(());
        }
    }
    // The crate takes the end of a file for the end of a cell.
    let End { quotes, last } = end.get();
    match is_open && quotes % 2 == 1 && last != b'"' {
        true => reader.refuse(last_place, RowError::OpenQuote),
        false => Ok(()),
    }
}

/// Whether the first line ends with a carriage return and a newline.
fn has_carriage_returns(content: &mut impl BufRead) -> std::io::Result<bool> {
    let start = content.fill_buf()?;
    let end = start.iter().position(|byte| *byte == b'\n');
    Ok(end.is_some_and(|end| start[..end].ends_with(b"\r")))
}

/// What is wrong with columns of which two have one name; those without a name may be several.
pub(super) fn same_names<'a>(names: impl Iterator<Item = &'a String>) -> Option<RowError> {
    let mut seen = HashSet::new();
    let mut named = names.filter(|name| !name.is_empty());
    let twice = named.find(|name| !seen.insert(*name))?;
    Some(RowError::SameColumns {
        name: twice.clone(),
    })
}

/// What a table has in it, up to where it is read.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    quotes: usize,
    /// The last byte that ends no line.
    last: u8,
}

/// A table that is watched while it is read.
struct Watched<R> {
    content: R,
    end: Rc<Cell<End>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.content.read(out)?;
        let mut end = self.end.get();
        let read = &out[..count];
        end.quotes += read.iter().filter(|byte| **byte == b'"').count();
        let bytes = read.iter().rev();
        if let Some(last) = bytes.copied().find(|byte| !matches!(byte, b'\n' | b'\r')) {
            end.last = last;
        }
        self.end.set(end);
        Ok(count)
    }
}
