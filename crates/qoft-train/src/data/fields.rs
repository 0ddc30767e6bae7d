//! The fields of rows that are no examples.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::{DataError, RowError};
use super::json::{parse, syntax_error};
use super::place::RowNumber;
use super::read::{Raw, read_rows};
use super::source::files;
use super::split::Split;

/// A row of a data file, as it is there.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RawRow {
    /// The file.
    pub path: PathBuf,
    /// Where in the file it is.
    pub place: RowNumber,
    /// Its fields; those that are null are left out. A text without fields is `text`.
    pub fields: Map<String, Value>,
}

impl RawRow {
    /// An error about it.
    #[must_use]
    pub fn error(&self, reason: RowError) -> DataError {
        DataError::Row {
            path: self.path.clone(),
            place: self.place,
            reason,
        }
    }

    /// The rows of a data file, or of the files in a folder, at most `limit`.
    ///
    /// # Errors
    /// [`DataError`], for a file that cannot be read, a row that is no object, and a file without rows.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Vec<Self>, DataError> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        for file in files(path, Split::Test)?.files {
            if rows.len() >= limit {
                break;
            }
            read_rows(&file, &mut |place, row| {
                let fields = row.and_then(fields).map_err(|reason| DataError::Row {
                    path: file.clone(),
                    place,
                    reason,
                })?;
                rows.push(Self {
                    path: file.clone(),
                    place,
                    fields,
                });
                Ok(match rows.len() < limit {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                })
            })?;
        }
        match rows.is_empty() {
            true => Err(DataError::Empty {
                path: path.to_owned(),
            }),
            false => Ok(rows),
        }
    }
}

fn fields(raw: Raw) -> Result<Map<String, Value>, RowError> {
    let value = match raw {
        Raw::Text(text) => {
            let mut fields = Map::new();
            fields.insert("text".to_owned(), text.into());
            return Ok(fields);
        }
        Raw::Json(text) => parse(&text).map_err(|error| syntax_error(&error))?,
        Raw::Value(value) => value,
        Raw::Cells(cells) => Value::Object(cells),
    };
    let Value::Object(mut fields) = value else {
        return Err(RowError::NotAnObject);
    };
    fields.retain(|_, value| !value.is_null());
    Ok(fields)
}
