//! Codes, a map and scales by group: the representation that most schemes share.

use std::ops::Range;

use bytes::Bytes;

use crate::decode;
use crate::weight::{PackedWeight, WeightInfo};

/// Codes of all weights, row-major, as one bit stream whose least significant bits come first.
#[derive(Debug, Clone)]
pub struct Codes {
    /// The stream.
    pub bytes: Bytes,
    /// Width of a code: 4 or 8.
    pub bits: u32,
}

/// The number that a code stands for, before scaling.
#[derive(Debug, Clone)]
pub enum CodeMap {
    /// A signed 8-bit integer.
    Int8,
    /// An entry of a table with 16 values.
    Table16(Box<[f32; 16]>),
}

/// Which scale belongs to weight `(n, k)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// One scale for each row.
    Row,
    /// Blocks of so many consecutive weights of the flattened matrix; a block may straddle rows
    /// and the last one may be short.
    Flat(usize),
}

impl Groups {
    /// How many groups a matrix of this shape has.
    pub fn count(self, [n, k]: [usize; 2]) -> usize {
        match self {
            Self::Row => n,
            Self::Flat(size) => (n * k).div_ceil(size),
        }
    }
}

/// The scales, one for each group.
#[derive(Debug, Clone)]
pub enum Scales {
    /// Plain values.
    F32(Vec<f32>),
    /// Quantized scales: `table[codes[g]] * absmax[g / block] + offset`, rounded after each step.
    Nested {
        /// One code for each group.
        codes: Bytes,
        /// The values of the codes.
        table: Box<[f32; 256]>,
        /// One scale for each block of groups.
        absmax: Vec<f32>,
        /// Groups that share an `absmax`.
        block: usize,
        /// Added at the end.
        offset: f32,
    },
}

impl Scales {
    fn get(&self, group: usize) -> f32 {
        match self {
            Self::F32(values) => values[group],
            Self::Nested {
                codes,
                table,
                absmax,
                block,
                offset,
            } => table[codes[group] as usize] * absmax[group / block] + offset,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Nested {
                codes,
                absmax,
                block,
                ..
            } => codes.len().min(absmax.len() * block),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => values.len() * 4,
            Self::Nested { codes, absmax, .. } => codes.len() + 256 * 4 + absmax.len() * 4 + 4,
        }
    }

    fn all_finite(&self) -> bool {
        (0..self.len()).all(|group| self.get(group).is_finite())
    }
}

/// Rounding of the product, as the scheme's own library does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// Values stay `f32`.
    #[default]
    None,
    /// To the nearest `f16`.
    F16,
    /// To the nearest `bf16`.
    Bf16,
}

/// Why a [`GroupedWeight`] cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WeightError {
    /// The matrix has no elements, or more than an address can count.
    #[error("impossible shape {0:?}")]
    Shape([usize; 2]),
    /// A part has another length than the shape demands.
    #[error("{part}: expected {expected} elements, found {found}")]
    Length {
        /// Which part: `codes` or `scales`.
        part: &'static str,
        /// The length that the shape demands.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// A scale or a table entry is infinite or not a number.
    #[error("{0}: a value is infinite or not a number")]
    NotFinite(&'static str),
    /// A block size of zero, or a code width that the map does not have.
    #[error("unsupported {0}")]
    Unsupported(&'static str),
}

/// `w[n, k] = round(map(code[n, k]) · scale[group(n, k)] · factor)`, multiplied from left to
/// right in `f32`.
#[derive(Debug, Clone)]
pub struct GroupedWeight {
    shape: [usize; 2],
    codes: Codes,
    map: CodeMap,
    groups: Groups,
    scales: Scales,
    factor: Option<f32>,
    rounding: Rounding,
    format: &'static str,
}

impl GroupedWeight {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If the parts' lengths do not fit `shape`, or a scale is not finite.
    pub fn new(
        shape: [usize; 2],
        codes: Codes,
        map: CodeMap,
        groups: Groups,
        scales: Scales,
        format: &'static str,
    ) -> Result<Self, WeightError> {
        let bits = match &map {
            CodeMap::Int8 => 8,
            CodeMap::Table16(table) if table.iter().any(|v| !v.is_finite()) => {
                return Err(WeightError::NotFinite("code table"));
            }
            CodeMap::Table16(_) => 4,
        };
        if codes.bits != bits {
            return Err(WeightError::Unsupported("code width for this map"));
        }
        if matches!(groups, Groups::Flat(0)) || matches!(scales, Scales::Nested { block: 0, .. }) {
            return Err(WeightError::Unsupported("block size 0"));
        }
        let elements = shape[0]
            .checked_mul(shape[1])
            .filter(|&n| n > 0 && n <= usize::MAX / 8);
        let elements = elements.ok_or(WeightError::Shape(shape))?;
        check_length(
            "codes",
            (elements * bits as usize).div_ceil(8),
            codes.bytes.len(),
        )?;
        check_length("scales", groups.count(shape), scales.len())?;
        if !scales.all_finite() {
            return Err(WeightError::NotFinite("scales"));
        }
        Ok(Self {
            shape,
            codes,
            map,
            groups,
            scales,
            factor: None,
            rounding: Rounding::None,
            format,
        })
    }

    /// Multiplies every weight by `factor`, after its scale.
    #[must_use]
    pub fn with_factor(mut self, factor: f32) -> Self {
        self.factor = Some(factor);
        self
    }

    /// Rounds every weight at the end.
    #[must_use]
    pub fn with_rounding(mut self, rounding: Rounding) -> Self {
        self.rounding = rounding;
        self
    }

    /// Decodes `out.len()` weights from flat index `start`, which all have scale `scale`.
    fn decode_run(&self, start: usize, scale: f32, out: &mut [f32]) {
        match &self.map {
            CodeMap::Int8 => decode::int8(&self.codes.bytes[start..], scale, out),
            CodeMap::Table16(table) => {
                decode::table16(&self.codes.bytes, start, table, scale, out);
            }
        }
        if let Some(factor) = self.factor {
            out.iter_mut().for_each(|w| *w *= factor);
        }
        match self.rounding {
            Rounding::None => {}
            Rounding::F16 => out
                .iter_mut()
                .for_each(|w| *w = half::f16::from_f32(*w).to_f32()),
            Rounding::Bf16 => out
                .iter_mut()
                .for_each(|w| *w = half::bf16::from_f32(*w).to_f32()),
        }
    }
}

fn check_length(part: &'static str, expected: usize, found: usize) -> Result<(), WeightError> {
    if expected == found {
        Ok(())
    } else {
        Err(WeightError::Length {
            part,
            expected,
            found,
        })
    }
}

impl PackedWeight for GroupedWeight {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let k = self.shape[1];
        for (row, out) in rows.zip(out.chunks_exact_mut(cols.len())) {
            let (mut flat, end) = (row * k + cols.start, row * k + cols.end);
            let mut out = out;
            while flat < end {
                let (group, group_end) = match self.groups {
                    Groups::Row => (row, end),
                    Groups::Flat(size) => (flat / size, (flat / size + 1) * size),
                };
                let (run, rest) = out.split_at_mut(group_end.min(end) - flat);
                self.decode_run(flat, self.scales.get(group), run);
                flat += run.len();
                out = rest;
            }
        }
    }

    fn packed_bytes(&self) -> usize {
        let table = match &self.map {
            CodeMap::Int8 => 0,
            CodeMap::Table16(_) => 64,
        };
        self.codes.bytes.len() + self.scales.bytes() + table
    }

    fn info(&self) -> WeightInfo {
        WeightInfo {
            bits: self.codes.bits,
            group_size: match self.groups {
                Groups::Row => None,
                Groups::Flat(size) => Some(size),
            },
            format: self.format.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> CodeMap {
        CodeMap::Table16(Box::new(std::array::from_fn(|i| i as f32 - 7.5)))
    }

    /// 5 × 7 weights in blocks of 6: odd rows, straddling blocks, a short last block.
    fn weight() -> GroupedWeight {
        let bytes: Vec<u8> = (0..18).map(|i| (i * 37 + 11) as u8).collect();
        let scales = Scales::F32(vec![1.0, 2.0, 0.5, -1.0, 3.0, 0.25]);
        let codes = Codes {
            bytes: bytes.into(),
            bits: 4,
        };
        GroupedWeight::new([5, 7], codes, table(), Groups::Flat(6), scales, "test").unwrap()
    }

    #[test]
    fn every_tile_equals_the_definition() {
        let weight = weight();
        let scales = [1.0, 2.0, 0.5, -1.0, 3.0, 0.25];
        let value = |flat: usize| {
            let byte = weight.codes.bytes[flat / 2];
            let code = if flat.is_multiple_of(2) {
                byte & 15
            } else {
                byte >> 4
            };
            (f32::from(code) - 7.5) * scales[flat / 6]
        };
        for r0 in 0..5 {
            for c0 in 0..7 {
                let mut out = vec![f32::NAN; (5 - r0) * (7 - c0)];
                weight.decode_tile(r0..5, c0..7, &mut out);
                let expected: Vec<f32> = (r0..5)
                    .flat_map(|r| (c0..7).map(move |c| value(r * 7 + c)))
                    .collect();
                assert_eq!(out, expected, "tile from ({r0}, {c0})");
            }
        }
    }

    #[test]
    fn wrong_parts_are_refused() {
        let make = |codes: usize, scales: Vec<f32>, groups| {
            let codes = Codes {
                bytes: vec![0; codes].into(),
                bits: 4,
            };
            GroupedWeight::new([4, 4], codes, table(), groups, Scales::F32(scales), "test")
        };
        assert!(make(8, vec![1.0; 4], Groups::Flat(4)).is_ok());
        let error = make(7, vec![1.0; 4], Groups::Flat(4)).unwrap_err();
        assert_eq!(
            error,
            WeightError::Length {
                part: "codes",
                expected: 8,
                found: 7
            }
        );
        assert!(make(8, vec![1.0; 3], Groups::Flat(4)).is_err());
        assert!(make(8, vec![f32::NAN; 4], Groups::Flat(4)).is_err());
        assert!(make(8, vec![1.0; 4], Groups::Flat(0)).is_err());
    }
}
