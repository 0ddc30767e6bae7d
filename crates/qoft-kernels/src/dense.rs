//! Dense weights, kept in the dtype and at the place (a memory map) where they were found.

use std::ops::Range;

use bytes::Bytes;

use crate::weight::{PackedWeight, Tile, WeightInfo};

/// Storage format of a dense weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatFormat {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
}

impl FloatFormat {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The usual short name: `f32`, `f16`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Reads little-endian values from `bytes`, one for each element of `out`.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::F16 => each(bytes, out, |b| half::f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, out, |b| half::bf16::from_le_bytes(b).to_f32()),
        }
    }

    /// Appends `values` to `bytes` in this format, rounding to nearest even.
    pub fn encode(self, values: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Self::F16 => {
                bytes.extend(
                    values
                        .iter()
                        .flat_map(|&v| half::f16::from_f32(v).to_le_bytes()),
                );
            }
            Self::Bf16 => {
                bytes.extend(
                    values
                        .iter()
                        .flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()),
                );
            }
        }
    }
}

fn each<const S: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; S]) -> f32) {
    let (values, _) = bytes.as_chunks::<S>();
    for (out, &value) in out.iter_mut().zip(values) {
        *out = read(value);
    }
}

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
        assert_eq!(
            bytes.len(),
            shape[0] * shape[1] * format.size(),
            "bytes of a dense weight"
        );
        Self {
            bytes,
            format,
            shape,
        }
    }

    /// Copies `f32` values.
    pub fn from_f32(values: &[f32], shape: [usize; 2]) -> Self {
        let mut bytes = Vec::with_capacity(values.len() * 4);
        FloatFormat::F32.encode(values, &mut bytes);
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

    fn packed_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn info(&self) -> WeightInfo {
        WeightInfo {
            bits: self.format.size() as u32 * 8,
            group_size: None,
            format: self.format.name().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_equals_the_values_in_every_format() {
        let values: Vec<f32> = (0..6 * 5).map(|i| i as f32 / 4.0 - 3.0).collect();
        for format in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
            let mut bytes = Vec::new();
            format.encode(&values, &mut bytes);
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
