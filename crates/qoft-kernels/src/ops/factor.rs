//! A packed weight as the right factor of a product, decoded piece by piece.

use std::ops::Range;

use crate::gemm::{Ahead, Columns, Mat, NC, PANEL, Tiles, Unit, numbers};
use crate::scratch::with_scratch;
use crate::weight::{PackedWeight, Tile};

/// `Wᵀ`, or with `transpose` W.
#[derive(Clone, Copy)]
pub(super) struct Factor<'a> {
    pub weight: &'a dyn PackedWeight,
    pub transpose: bool,
    /// The part of the weight's inner dimension that the factor's rows are.
    inner: [usize; 2],
}

impl<'a> Factor<'a> {
    pub(super) fn new(weight: &'a dyn PackedWeight, transpose: bool) -> Self {
        let length = weight.shape()[usize::from(!transpose)];
        Self {
            weight,
            transpose,
            inner: [0, length],
        }
    }

    /// Some rows of it.
    pub(super) fn rows(self, rows: Range<usize>) -> Self {
        let first = self.inner[0];
        Self {
            inner: [first + rows.start, first + rows.end],
            ..self
        }
    }

    /// The numbers of the inner dimension of some units.
    fn inner<E: Unit>(&self, units: Range<usize>) -> Range<usize> {
        let [start, end] = self.inner;
        let rows = numbers::<E>(units, end - start);
        start + rows.start..start + rows.end
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
        let Tile { data, row_stride } = self.weight.tile(rows, cols, scratch);
        Mat::new(data, height, width, row_stride)
    }

    fn ahead(&self, rows: Range<usize>, cols: Range<usize>) -> Ahead {
        let [n, k] = self.weight.shape();
        let Some(bytes) = self.weight.rows_in_memory() else {
            return Ahead::NOTHING;
        };
        let [rows, cols] =
            [(rows, n), (cols, k)].map(|(range, most)| range.start.min(most)..range.end.min(most));
        let row = bytes.len() / n;
        let [start, end] = [cols.start * row / k, (cols.end * row).div_ceil(k)];
        Ahead::new(
            &bytes[rows.start * row + start..],
            rows.len(),
            end - start,
            row,
        )
    }
}

impl<E: Unit> Columns<E> for Factor<'_> {
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
