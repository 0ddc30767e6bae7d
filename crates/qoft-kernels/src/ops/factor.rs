//! A packed weight as the right factor of a product, decoded piece by piece.

use std::ops::Range;

use crate::gemm::{Ahead, Columns, Mat, NC, Operand, PANEL, Tiles, Unit, numbers};
use crate::row::InputRow;
use crate::scratch::with_scratch;
use crate::weight::{PackedWeight, Tile};

/// `Wᵀ`, or with `transpose` W, of some rows of a weight.
#[derive(Clone, Copy)]
pub(super) struct Factor<'a> {
    pub weight: &'a dyn PackedWeight,
    pub transpose: bool,
    /// The first of the rows.
    first: usize,
    /// Rows and columns of W.
    shape: [usize; 2],
}

impl<'a> Factor<'a> {
    /// Of the whole weight.
    pub(super) fn new(weight: &'a dyn PackedWeight, transpose: bool) -> Self {
        Self {
            weight,
            transpose,
            first: 0,
            shape: weight.shape(),
        }
    }

    /// Of these rows of the weight.
    pub(super) fn of_rows(
        weight: &'a dyn PackedWeight,
        transpose: bool,
        rows: Range<usize>,
    ) -> Self {
        Self {
            first: rows.start,
            shape: [rows.len(), weight.shape()[1]],
            ..Self::new(weight, transpose)
        }
    }

    /// The product of a row of activations with some of the rows of W.
    pub(super) fn dot(&self, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        let rows = self.first + rows.start..self.first + rows.end;
        self.weight.dot(rows, &InputRow::new(x), out);
    }

    /// The numbers of the inner dimension of some units.
    fn inner<E: Unit>(&self, units: Range<usize>) -> Range<usize> {
        numbers::<E>(units, self.shape[usize::from(!self.transpose)])
    }
}

impl Tiles for Factor<'_> {
    fn tile<'a>(
        &'a self,
        rows: Range<usize>,
        cols: Range<usize>,
        scratch: &'a mut [f32],
    ) -> Mat<'a> {
        let (height, width) = (rows.len(), cols.len());
        let rows = self.first + rows.start..self.first + rows.end;
        let Tile { data, row_stride } = self.weight.tile(rows, cols, scratch);
        Mat::new(data, height, width, row_stride)
    }

    fn ahead(&self, rows: Range<usize>, cols: Range<usize>) -> Ahead {
        let Some(bytes) = self.weight.rows_in_memory() else {
            return Ahead::NOTHING;
        };
        let [n, k] = self.shape;
        let [rows, cols] =
            [(rows, n), (cols, k)].map(|(range, most)| range.start.min(most)..range.end.min(most));
        let row = bytes.len() / self.weight.shape()[0];
        let [start, end] = [cols.start * row / k, (cols.end * row).div_ceil(k)];
        Ahead::new(
            &bytes[(self.first + rows.start) * row + start..],
            rows.len(),
            end - start,
            row,
        )
    }
}

impl<E: Operand> Columns<E> for Factor<'_> {
    /// Decoders like long pieces of rows of the weight.
    fn width(&self) -> usize {
        if self.transpose { 9 * NC } else { 3 * NC }
    }

    fn pack(&self, rows: Range<usize>, cols: Range<usize>, panels: &mut [E]) {
        let units = rows.len();
        let rows = self.inner::<E>(rows);
        let kc = rows.len();
        if self.transpose {
            let nc = cols.len();
            return with_scratch(kc * nc, |scratch| {
                self.tile(rows, cols, scratch).pack(0..units, 0..nc, panels);
            });
        }
        // Few rows at a time, which are turned over while they are near.
        with_scratch(kc * NC, |scratch| {
            let starts = cols.clone().step_by(NC);
            for (col, panel) in starts.zip(panels.chunks_exact_mut(PANEL)) {
                let nc = NC.min(cols.end - col);
                let tile = self.tile(col..col + nc, rows.clone(), scratch);
                tile.t().pack(0..units, 0..nc, panel);
            }
        });
    }

    fn ahead(&self, rows: Range<usize>, cols: Range<usize>) -> Ahead {
        let rows = self.inner::<E>(rows);
        match self.transpose {
            true => Tiles::ahead(self, rows, cols),
            false => Tiles::ahead(self, cols, rows),
        }
    }
}
