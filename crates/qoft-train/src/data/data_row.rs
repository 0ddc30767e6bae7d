//! What the rows of a data set are made of.

use super::encode::{EncodedRow, Encoder};
use super::error::RowError;
use super::example::Example;
use super::format::DataFormat;
use super::row::Row;
use serde_json::{Map, Value};

/// A row of tokens: an [`Example`], or what holds several of them.
pub trait DataRow: Clone + PartialEq + Send {
    /// A number for what it is beside its examples, which tells how many these are.
    fn kind(&self) -> u32;

    /// Its examples.
    fn parts(&self) -> Vec<&Example>;

    /// The same, to be changed.
    fn parts_mut(&mut self) -> Vec<&mut Example>;

    /// How many examples a row of this kind has; `None` for a kind that there is not.
    fn parts_of(kind: u32) -> Option<usize>;

    /// A row of a kind from its examples; `None` if these are not as many.
    fn from_parts(kind: u32, parts: Vec<Example>) -> Option<Self>;

    /// Reads a row's fields.
    #[doc(hidden)]
    fn encode(
        fields: Map<String, Value>,
        format: DataFormat,
        encoder: &Encoder,
    ) -> Result<(EncodedRow<Self>, DataFormat), RowError>;

    /// A row of a text without fields.
    #[doc(hidden)]
    fn encode_text(text: String, encoder: &Encoder) -> Result<EncodedRow<Self>, RowError>;

    /// Its tokens.
    fn tokens(&self) -> usize {
        let lengths = self.parts().into_iter().map(|part| part.input_ids.len());
        lengths.sum()
    }

    /// The tokens of the longest of its examples.
    fn longest(&self) -> usize {
        let lengths = self.parts().into_iter().map(|part| part.input_ids.len());
        lengths.max().unwrap_or(0)
    }

    /// The number of labels that a model is asked to predict.
    fn predicted(&self) -> usize {
        self.parts().into_iter().map(Example::predicted).sum()
    }

    /// Whether nothing would be left to learn of one of its examples if it kept `length` tokens.
    fn is_lost(&self, length: usize) -> bool {
        let _ = length;
        false
    }

    /// Keeps the first `length` tokens of each of its examples.
    fn truncate(&mut self, length: usize) {
        for part in self.parts_mut() {
            part.input_ids.truncate(length);
            part.labels.truncate(length);
        }
    }
}

impl DataRow for Example {
    fn kind(&self) -> u32 {
        0
    }

    fn parts(&self) -> Vec<&Example> {
        vec![self]
    }

    fn parts_mut(&mut self) -> Vec<&mut Example> {
        vec![self]
    }

    fn parts_of(kind: u32) -> Option<usize> {
        (kind == 0).then_some(1)
    }

    fn from_parts(_kind: u32, mut parts: Vec<Example>) -> Option<Self> {
        parts.pop().filter(|_| parts.is_empty())
    }

    fn encode(
        fields: Map<String, Value>,
        format: DataFormat,
        encoder: &Encoder,
    ) -> Result<(EncodedRow<Self>, DataFormat), RowError> {
        let (row, format) = Row::read(fields, format)?;
        Ok((encoder.encode(row)?, format))
    }

    fn encode_text(text: String, encoder: &Encoder) -> Result<EncodedRow<Self>, RowError> {
        encoder.encode(Row::Text(text))
    }
}
