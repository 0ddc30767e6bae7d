//! A dense matrix, for the places where one layer at a time is decoded.

use crate::weight::PackedWeight;

/// A dense `f32` matrix, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// `shape[0] * shape[1]` values.
    pub values: Vec<f32>,
}

impl Matrix {
    /// A whole weight, decoded.
    pub fn decode(weight: &dyn PackedWeight) -> Self {
        let shape = weight.shape();
        let mut values = vec![0.0; shape[0] * shape[1]];
        weight.decode_tile(0..shape[0], 0..shape[1], &mut values);
        Self { shape, values }
    }

    /// Row `n`.
    pub fn row(&self, n: usize) -> &[f32] {
        &self.values[n * self.shape[1]..][..self.shape[1]]
    }

    /// All rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.shape[1])
    }
}
