//! Dense weights, kept in the dtype and at the place (a memory map) where they were found.

use std::ops::Range;

use bytes::Bytes;
use pulp::{Simd, WithSimd};

use crate::device::{DeviceLayout, DeviceWeight, Words};
use crate::floats::FloatFormat;
use crate::row::InputRow;
use crate::scratch::with_scratch;
use crate::simd::{arch, prefetch};
use crate::vector::dot;
use crate::weight::{PackedWeight, Tile, WeightInfo};

/// Bytes that are asked for ahead of those that a product with one row reads.
const AHEAD: usize = 2048;

/// A dense matrix, row-major, little-endian.
#[derive(Debug, Clone)]
pub struct DenseWeight {
    bytes: Bytes,
    format: FloatFormat,
    shape: [usize; 2],
}

impl DenseWeight {
    /// Wraps the bytes of a matrix.
    ///
    /// # Panics
    /// If the byte count does not fit the shape; readers check this before.
    pub fn new(bytes: Bytes, format: FloatFormat, shape: [usize; 2]) -> Self {
        let values = shape[0].checked_mul(shape[1]);
        let expected = values.and_then(|values| values.checked_mul(format.size()));
        assert_eq!(Some(bytes.len()), expected, "bytes of a dense weight");
        Self {
            bytes,
            format,
            shape,
        }
    }

    /// Copies `f32` values.
    pub fn from_f32(values: &[f32], shape: [usize; 2]) -> Self {
        let bytes = FloatFormat::F32.to_bytes(values);
        Self::new(bytes.into(), FloatFormat::F32, shape)
    }

    /// The values in place, if they are `f32` and aligned.
    fn as_f32(&self) -> Option<&[f32]> {
        if self.format != FloatFormat::F32 || cfg!(target_endian = "big") {
            return None;
        }
        // SAFETY: every bit pattern is a valid f32, and `align_to` keeps to aligned elements.
        let (before, values, after) = unsafe { self.bytes.align_to::<f32>() };
        (before.is_empty() && after.is_empty()).then_some(values)
    }
}

impl PackedWeight for DenseWeight {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let size = self.format.size();
        for (row, out) in rows.zip(out.chunks_exact_mut(cols.len())) {
            let start = (row * self.shape[1] + cols.start) * size;
            self.format
                .decode(&self.bytes[start..start + cols.len() * size], out);
        }
    }

    fn tile<'a>(
        &'a self,
        rows: Range<usize>,
        cols: Range<usize>,
        scratch: &'a mut [f32],
    ) -> Tile<'a> {
        if let Some(values) = self.as_f32() {
            let row_stride = self.shape[1];
            return Tile {
                data: &values[rows.start * row_stride + cols.start..],
                row_stride,
            };
        }
        let row_stride = cols.len();
        let scratch = &mut scratch[..rows.len() * row_stride];
        self.decode_tile(rows, cols, scratch);
        Tile {
            data: scratch,
            row_stride,
        }
    }

    fn dot(&self, rows: Range<usize>, x: &InputRow, out: &mut [f32]) {
        let (x, k) = (x.values(), self.shape[1]);
        if k == 0 {
            return out.fill(0.0);
        }
        if let Some(values) = self.as_f32() {
            let rows = &values[rows.start * k..];
            return arch().dispatch(Dot { rows, x, out });
        }
        let size = k * self.format.size();
        let rows = self.bytes[rows.start * size..].chunks_exact(size);
        with_scratch(k, |row| {
            for (out, bytes) in out.chunks_mut(1).zip(rows) {
                bytes.chunks(64).for_each(|line| prefetch(&line[0], AHEAD));
                self.format.decode(bytes, row);
                arch().dispatch(Dot { rows: row, x, out });
            }
        });
    }

    fn rows_in_memory(&self) -> Option<&[u8]> {
        Some(&self.bytes)
    }

    fn device_weight(&self) -> Option<DeviceWeight> {
        let words = Words::new(self.shape, &self.bytes)?;
        Some(words.finish(DeviceLayout::Dense(self.format)))
    }

    fn packed_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn info(&self) -> WeightInfo {
        WeightInfo::dense(self.format)
    }
}

/// The products of rows that lie one after another with `x`.
struct Dot<'a> {
    rows: &'a [f32],
    x: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Dot<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        /// Sums that run beside each other.
        const SUMS: usize = 4;
        let (x, x_tail) = S::as_simd_f32s(self.x);
        let (x_wide, x) = x.as_chunks::<SUMS>();
        for (out, row) in self
            .out
            .iter_mut()
            .zip(self.rows.chunks_exact(self.x.len()))
        {
            let (row, tail) = S::as_simd_f32s(row);
            let (wide, row) = row.as_chunks::<SUMS>();
            let mut sums = [simd.splat_f32s(0.0); SUMS];
            for (row, x) in wide.iter().zip(x_wide) {
                for (sum, (row, &x)) in sums.iter_mut().zip(row.iter().zip(x)) {
                    prefetch(row, AHEAD);
                    *sum = simd.mul_add_f32s(*row, x, *sum);
                }
            }
            for (sum, (&row, &x)) in sums.iter_mut().zip(row.iter().zip(x)) {
                *sum = simd.mul_add_f32s(row, x, *sum);
            }
            let [a, b, c, d] = sums;
            let sum = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
            *out = simd.reduce_sum_f32s(sum) + dot(tail, x_tail);
        }
    }
}

/// A dense matrix that belongs to somebody else: `f32`, row-major.
#[derive(Debug, Clone, Copy)]
pub struct DenseView<'a> {
    values: &'a [f32],
    shape: [usize; 2],
}

impl<'a> DenseView<'a> {
    /// A view of `values`.
    ///
    /// # Panics
    /// If the number of values does not fit the shape.
    pub fn new(values: &'a [f32], shape: [usize; 2]) -> Self {
        assert_eq!(values.len(), shape[0] * shape[1], "values of a dense view");
        Self { values, shape }
    }
}

impl PackedWeight for DenseView<'_> {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        for (row, out) in rows.zip(out.chunks_exact_mut(cols.len())) {
            out.copy_from_slice(&self.values[row * self.shape[1]..][cols.clone()]);
        }
    }

    fn tile<'a>(
        &'a self,
        rows: Range<usize>,
        cols: Range<usize>,
        _scratch: &'a mut [f32],
    ) -> Tile<'a> {
        let row_stride = self.shape[1];
        Tile {
            data: &self.values[rows.start * row_stride + cols.start..],
            row_stride,
        }
    }

    fn packed_bytes(&self) -> usize {
        size_of_val(self.values)
    }

    fn info(&self) -> WeightInfo {
        WeightInfo::dense(FloatFormat::F32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_equals_the_values_in_every_format() {
        let values: Vec<f32> = (0..6 * 5).map(|i| i as f32 / 4.0 - 3.0).collect();
        for format in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
            let bytes = format.to_bytes(&values);
            let weight = DenseWeight::new(bytes.into(), format, [6, 5]);
            let mut scratch = vec![0.0; 6];
            let tile = weight.tile(1..3, 2..5, &mut scratch);
            for row in 0..2 {
                for col in 0..3 {
                    let expected = values[(row + 1) * 5 + col + 2];
                    assert_eq!(tile.data[row * tile.row_stride + col], expected);
                }
            }
        }
    }
}
