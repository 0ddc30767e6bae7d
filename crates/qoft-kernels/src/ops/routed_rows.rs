//! Rows that several places read, and rows that are added up where they came from.

use std::sync::Arc;

use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces;

/// Which rows of a matrix go where: each to as many places as all others.
#[derive(Debug)]
struct Places {
    /// The row that each place reads.
    sources: Vec<usize>,
    /// The places of each row, one row after another.
    of_rows: Vec<usize>,
    /// How many places each row has.
    copies: usize,
}

/// A choice of places for rows; clones share it.
#[derive(Debug, Clone)]
pub struct RoutedRows(Arc<Places>);

impl RoutedRows {
    /// Rows of which each has `copies` places: `of_rows` are those of the first row, then those of the
    /// second one, and so on.
    ///
    /// # Panics
    /// Unless each place below the number of all of them is given once.
    pub fn new(of_rows: Vec<usize>, copies: usize) -> Self {
        let mut sources = vec![usize::MAX; of_rows.len()];
        for (slot, &place) in of_rows.iter().enumerate() {
            assert_eq!(sources[place], usize::MAX, "place {place} is given twice");
            sources[place] = slot / copies;
        }
        Self(Arc::new(Places {
            sources,
            of_rows,
            copies,
        }))
    }

    /// The row that each place reads.
    pub fn sources(&self) -> &[usize] {
        &self.0.sources
    }

    /// The places of all rows, one row after another.
    pub fn places(&self) -> &[usize] {
        &self.0.of_rows
    }

    /// How many places each row has.
    pub fn copies(&self) -> usize {
        self.0.copies
    }

    /// `[places, width]` from `[rows, width]`.
    fn spread(&self, x: &[f32], width: usize) -> Vec<f32> {
        let sources = self.sources();
        let [out] = in_pieces([sources.len(), width], |first, [out]| {
            let rows = out.chunks_exact_mut(width.max(1)).zip(&sources[first..]);
            for (out, &source) in rows {
                out.copy_from_slice(&x[source * width..][..width]);
            }
        });
        out
    }

    /// `[rows, width]` from `[places, width]`.
    fn collect(&self, y: &[f32], width: usize) -> Vec<f32> {
        let copies = self.copies();
        let rows = self.places().len() / copies;
        let [out] = in_pieces([rows, width], |first, [out]| {
            let places = self.places()[first * copies..].chunks_exact(copies);
            for (out, places) in out.chunks_exact_mut(width.max(1)).zip(places) {
                for &place in places {
                    let row = &y[place * width..][..width];
                    out.iter_mut().zip(row).for_each(|(out, y)| *out += y);
                }
            }
        });
        out
    }
}

/// Copies each row of `[rows, width]` to its places: `[places, width]`.
#[derive(Debug, Clone)]
pub struct SpreadRows(pub RoutedRows);

/// Adds up what stands at the places of each row: `[rows, width]` from `[places, width]`.
#[derive(Debug, Clone)]
pub struct CollectRows(pub RoutedRows);

impl HostOp for SpreadRows {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let width = inputs[0].shape[1];
        let out = self.0.spread(inputs[0].data, width);
        Forward::new(&[self.0.sources().len(), width], out)
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    fn backward(
        &self,
        _inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        vec![Some(self.0.collect(grad.data, grad.shape[1]))]
    }
}

impl HostOp for CollectRows {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let width = inputs[0].shape[1];
        let out = self.0.collect(inputs[0].data, width);
        Forward::new(&[self.0.places().len() / self.0.copies(), width], out)
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    fn backward(
        &self,
        _inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        vec![Some(self.0.spread(grad.data, grad.shape[1]))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    fn routed() -> RoutedRows {
        RoutedRows::new(vec![2, 0, 5, 1, 3, 4], 2)
    }

    #[test]
    fn rows_are_copied_and_added_up() {
        let x = [1.0, 2.0, 10.0, 20.0, 100.0, 200.0];
        let spread = SpreadRows(routed()).forward(&[HostView::new(&[3, 2], &x)], false);
        assert_eq!(spread.shape, [6, 2]);
        let expected = [
            1.0, 2.0, 10.0, 20.0, 1.0, 2.0, 100.0, 200.0, 100.0, 200.0, 10.0, 20.0,
        ];
        assert_eq!(spread.data, expected);
        let sums = CollectRows(routed()).forward(&[HostView::new(&[6, 2], &spread.data)], false);
        assert_eq!(sums.shape, [3, 2]);
        assert_eq!(sums.data, x.map(|x| 2.0 * x));
    }

    #[test]
    fn gradients_equal_finite_differences() {
        check_gradients(&SpreadRows(routed()), &[(vec![3, 4], random(12, 1))]);
        check_gradients(&CollectRows(routed()), &[(vec![6, 4], random(24, 2))]);
    }

    #[test]
    #[should_panic(expected = "given twice")]
    fn a_place_has_one_row() {
        RoutedRows::new(vec![0, 0], 1);
    }
}
