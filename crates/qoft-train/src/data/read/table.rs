//! Tables of texts: comma-separated values, and values with tabs between them.

use std::io::BufRead;

use csv::{ErrorKind, ReaderBuilder, Trim};
use serde_json::{Map, Value};

use super::{Raw, Reader};
use crate::data::error::{DataError, RowError, RowNumber};
use crate::data::source::io_error;

/// Hands on the rows below the line with the names.
pub(super) fn rows(
    reader: Reader<'_, '_>,
    content: impl BufRead,
    delimiter: u8,
) -> Result<(), DataError> {
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
                let place = RowNumber::Line(error.position().map_or(1, |p| p.line() as usize));
                return match error.into_kind() {
                    ErrorKind::Io(error) => Err(io_error(reader.path, error)),
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
            names = Some(trimmed.collect());
            continue;
        };
        let place = RowNumber::Line(record.position().map_or(1, |p| p.line() as usize));
        let cells = names.iter().zip(&record);
        let cells = cells.map(|(name, cell)| (name.clone(), Value::from(cell)));
        let row = Raw::Cells(cells.collect::<Map<String, Value>>());
        if (reader.take)(place, Ok(row))?.is_break() {
            break;
        }
    }
    Ok(())
}
