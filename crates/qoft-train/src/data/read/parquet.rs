//! Parquet files.

use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Value};

use super::table::same_names;
use super::{Raw, Reader};
use crate::data::error::{DataError, RowError};
use crate::data::place::RowNumber;
use crate::data::source::io_error;
use crate::isolated::isolated;

/// Hands on the rows of a file.
pub(super) fn rows(reader: Reader<'_, '_>) -> Result<(), DataError> {
    let path = reader.path;
    let broken = |reason: String| DataError::Unusable {
        path: path.to_owned(),
        what: format!(
            "cannot be read as a Parquet file: {reason}{}",
            help(&reason)
        ),
    };
    let file = File::open(path).map_err(|error| io_error(path, error))?;
    // The crate panics on some damaged files.
    let opened = isolated(|| SerializedFileReader::new(file)).map_err(broken)?;
    let opened = opened.map_err(|error| broken(error.to_string()))?;
    let rows = isolated(|| opened.get_row_iter(None)).map_err(broken)?;
    let mut rows = rows.map_err(|error| broken(error.to_string()))?;
    for number in 1.. {
        let Some(row) = isolated(|| rows.next()).map_err(broken)? else {
            break;
        };
        let row = row.map_err(|error| broken(error.to_string()))?;
        if number == 1
            && let Some(error) = same_names(row.get_column_iter().map(|(name, _)| name))
        {
            return reader.refuse(RowNumber::Row(number), error);
        }
        let row = isolated(|| fields(&row)).map_err(broken)?;
        if (reader.take)(RowNumber::Row(number), row.map(Raw::Value))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// A row as JSON. Columns of bytes hold texts: many programs write no type beside them.
fn fields(row: &Row) -> Result<Value, RowError> {
    let columns = row.get_column_iter();
    let columns = columns.map(|(name, field)| Ok((name.clone(), json(field)?)));
    columns.collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

fn json(field: &Field) -> Result<Value, RowError> {
    Ok(match field {
        Field::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.data());
            text.map_err(|_| RowError::NotUtf8)?.into()
        }
        Field::Group(row) => fields(row)?,
        Field::ListInternal(list) => {
            let elements = list.elements().iter().map(json);
            elements.collect::<Result<Vec<_>, _>>()?.into()
        }
        other => other.to_json_value(),
    })
}

/// What to do about pages that this program cannot unpack.
fn help(reason: &str) -> &'static str {
    match reason.to_ascii_lowercase() {
        text if text.contains("zstd") && cfg!(not(feature = "parquet-zstd")) => {
            "; build the program with the Cargo feature `parquet-zstd`, or write the file with \
             another compression (in Python: pandas.read_parquet(FILE).to_parquet(NEW))"
        }
        text if text.contains("brotli") => {
            "; write the file with another compression (in Python: \
             pandas.read_parquet(FILE).to_parquet(NEW))"
        }
        _ => "",
    }
}
