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

impl RowNumber {
    /// What it counts and its number, as numbers for a file.
    pub(super) fn to_words(self) -> [u32; 2] {
        let (kind, number) = match self {
            Self::Line(number) => (0, number),
            Self::Element(number) => (1, number),
            Self::Row(number) => (2, number),
        };
        [kind, u32::try_from(number).unwrap_or(u32::MAX)]
    }

    /// The one that [`Self::to_words`] gives these of.
    pub(super) fn from_words([kind, number]: [u32; 2]) -> Option<Self> {
        let number = number as usize;
        match kind {
            0 => Some(Self::Line(number)),
            1 => Some(Self::Element(number)),
            2 => Some(Self::Row(number)),
            _ => None,
        }
    }
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
