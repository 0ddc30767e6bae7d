//! Parquet files.

use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{Raw, Reader};
use crate::data::error::{DataError, RowNumber};
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
        let row = isolated(|| row.to_json_value()).map_err(broken)?;
        if (reader.take)(RowNumber::Row(number), Ok(Raw::Value(row)))?.is_break() {
            break;
        }
    }
    Ok(())
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
