//! A dense matrix, for the places where one layer at a time is decoded.

use rayon::prelude::*;

use crate::floats::FloatFormat;
use crate::pieces::in_pieces;
use crate::weight::PackedWeight;

/// Values that one task handles.
const PIECE: usize = 1 << 14;

/// A dense `f32` matrix, row-major.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Matrix {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// `shape[0] * shape[1]` values.
    pub values: Vec<f32>,
}

impl Matrix {
    /// A matrix of these values, row-major, and of `[out_features, in_features]`.
    ///
    /// # Panics
    /// If the number of values does not fit the shape.
    pub fn new(values: Vec<f32>, shape: [usize; 2]) -> Self {
        assert_eq!(
            shape[0].checked_mul(shape[1]),
            Some(values.len()),
            "as many values as a matrix of {shape:?} has"
        );
        Self { shape, values }
    }

    /// A whole weight, decoded.
    pub fn decode(weight: &dyn PackedWeight) -> Self {
        let shape = weight.shape();
        let [values] = in_pieces(shape, |first, [piece]| {
            let rows = first..first + piece.len() / shape[1].max(1);
            weight.decode_tile(rows, 0..shape[1], piece);
        });
        Self { shape, values }
    }

    /// Rounds all values to those of a format.
    pub fn round(&mut self, format: FloatFormat) {
        let pieces = self.values.par_chunks_mut(PIECE);
        pieces.for_each(|values| format.round(values));
    }

    /// Whether no value is infinite or not a number.
    pub fn is_finite(&self) -> bool {
        // Without leaving early within a piece, which would cost more than it saves.
        let finite = |values: &[f32]| values.iter().fold(true, |all, v| all & v.is_finite());
        self.values.par_chunks(PIECE).all(finite)
    }

    /// The matrix with rows and columns exchanged.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let [rows, cols] = self.shape;
        let mut values = vec![0.0; self.values.len()];
        for (row, line) in self.rows().enumerate() {
            for (col, value) in line.iter().enumerate() {
                values[col * rows + row] = *value;
            }
        }
        Self {
            shape: [cols, rows],
            values,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        let matrix = Matrix {
            shape: [2, 3],
            values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        };
        let turned = matrix.transposed();
        assert_eq!(turned.shape, [3, 2]);
        assert_eq!(turned.values, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(turned.transposed(), matrix);
    }
}
