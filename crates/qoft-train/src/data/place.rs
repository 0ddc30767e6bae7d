//! Where rows are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where in a file a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RowNumber {
    /// In this line, counted from 1.
    Line(usize),
    /// In this element of the file's JSON array, counted from 1.
    Element(usize),
    /// In this row of a table that has no lines, counted from 1.
    Row(usize),
}

impl fmt::Display for RowNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Element(number) => write!(f, "element {number}"),
            Self::Row(number) => write!(f, "row {number}"),
        }
    }
}

/// Where in the data of a path a row is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RowPlace {
    /// The name of the file in a folder; none where the path is the file.
    pub file: Option<String>,
    /// Where in the file it is.
    pub row: RowNumber,
}

impl From<RowNumber> for RowPlace {
    fn from(row: RowNumber) -> Self {
        Self { file: None, row }
    }
}

impl fmt::Display for RowPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file} {}", self.row),
            None => self.row.fmt(f),
        }
    }
}
