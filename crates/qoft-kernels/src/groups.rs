//! Groups of weights that share a scale, and the scales and zero points.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{WeightError, check_length};
use crate::floats::{FloatFormat, Floats};
use crate::wide;

/// Which group weight `(n, k)` of an `[out_features, in_features]` matrix belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Groups {
    /// Rectangles of so many rows and columns, numbered row by row; those at the edges may be
    /// short.
    Blocks([usize; 2]),
    /// Runs of so many consecutive weights of the flattened matrix; a run may straddle rows and
    /// the last one may be short.
    Flat(usize),
    /// So many groups that take turns: weight `i` of the flattened matrix is in group
    /// `i % count`.
    Interleaved(usize),
    /// Any assignment of input features: `n * count + index[k]`.
    Indexed {
        /// The group of each input feature within its row.
        index: Arc<[u32]>,
        /// Groups in a row.
        count: usize,
    },
}

impl Groups {
    /// One group for each row.
    pub const ROW: Self = Self::Blocks([1, usize::MAX]);
    /// One group for all weights.
    pub const TENSOR: Self = Self::Blocks([usize::MAX, usize::MAX]);

    /// How many groups a matrix of this shape has; blocks of size 0 count as 1, and more than can be
    /// counted as [`usize::MAX`].
    pub fn count(&self, [n, k]: [usize; 2]) -> usize {
        match self {
            Self::Blocks([rows, cols]) => {
                let [rows, cols] = [rows, cols].map(|size| (*size).max(1));
                n.div_ceil(rows).saturating_mul(k.div_ceil(cols))
            }
            Self::Flat(size) => n.saturating_mul(k).div_ceil((*size).max(1)),
            Self::Interleaved(count) => *count,
            Self::Indexed { count, .. } => n.saturating_mul(*count),
        }
    }

    /// Weights in a group, where it is part of a row.
    pub(crate) fn size(&self, [n, k]: [usize; 2]) -> Option<usize> {
        match self {
            Self::Blocks([_, cols]) if *cols >= k => None,
            Self::Blocks([_, cols]) => Some(*cols),
            Self::Flat(size) => Some(*size),
            Self::Interleaved(count) => Some(n * k / count),
            Self::Indexed { count: 1, .. } => None,
            Self::Indexed { count, .. } => Some(k.div_ceil(*count)),
        }
    }

    pub(crate) fn check(&self, [n, k]: [usize; 2]) -> Result<(), WeightError> {
        match self {
            Self::Blocks([0, _] | [_, 0]) | Self::Flat(0) | Self::Interleaved(0) => {
                Err(WeightError::Unsupported("block size 0"))
            }
            Self::Interleaved(count) if !(n * k).is_multiple_of(*count) => {
                Err(WeightError::Unsupported("number of groups"))
            }
            Self::Indexed { index, count } => {
                check_length("group index", k, index.len())?;
                let wrong = index.iter().position(|&g| g as usize >= *count);
                wrong.map_or(Ok(()), |feature| {
                    Err(WeightError::Group {
                        feature,
                        group: index[feature] as usize,
                        count: *count,
                    })
                })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Indexed { index, .. } => index.len() * 4,
            _ => 0,
        }
    }
}

/// The scales, one for each group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Scales {
    /// Plain values.
    Plain(Floats),
    /// Quantized scales: `table[codes[g]] * absmax[g / block] + offset`, rounded after each step.
    Nested {
        /// One code for each group.
        codes: Bytes,
        /// The values of the codes.
        table: Box<[f32; 256]>,
        /// One scale for each block of groups.
        absmax: Floats,
        /// Groups that share an `absmax`.
        block: usize,
        /// Added at the end.
        offset: f32,
    },
}

impl Scales {
    /// One byte for each group, which names an entry of a table: 8-bit floats or exponents.
    pub fn coded(codes: Bytes, table: Box<[f32; 256]>) -> Result<Self, WeightError> {
        let one = Floats::from_f32(&[1.0], FloatFormat::F32)?;
        Ok(Self::Nested {
            block: codes.len().max(1),
            codes,
            table,
            absmax: one,
            offset: 0.0,
        })
    }

    /// The scales from group `start` on.
    pub(crate) fn read(&self, start: usize, out: &mut [f32]) {
        match self {
            Self::Plain(values) => values.read(start, out),
            Self::Nested {
                codes,
                table,
                absmax,
                block,
                offset,
            } => {
                let codes = &codes[start..start + out.len()];
                let mut done = 0;
                while done < out.len() {
                    let group = start + done;
                    let count = (block - group % block).min(out.len() - done);
                    let absmax = absmax.get(group / block);
                    let codes = &codes[done..done + count];
                    let out = &mut out[done..done + count];
                    for (out, &code) in out.iter_mut().zip(codes) {
                        *out = table[usize::from(code)];
                    }
                    wide!(out.iter_mut().for_each(|v| *v = *v * absmax + offset));
                    done += count;
                }
            }
        }
    }

    /// Checks that there is one for each group; whether they are finite is seen when they are read.
    pub(crate) fn check(&self, groups: usize) -> Result<(), WeightError> {
        let found = match self {
            Self::Plain(values) => values.len(),
            Self::Nested { block: 0, .. } => {
                return Err(WeightError::Unsupported("block size 0"));
            }
            Self::Nested {
                codes,
                absmax,
                block,
                ..
            } => codes.len().min(absmax.len().saturating_mul(*block)),
        };
        check_length("scales", groups, found)
    }

    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Plain(values) => values.byte_len(),
            Self::Nested { codes, absmax, .. } => codes.len() + 256 * 4 + absmax.byte_len() + 4,
        }
    }
}

/// The zero points, one for each group: what is subtracted before numbers are scaled, or added after.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Zeros {
    /// Integers from 0 to 255, subtracted.
    Integers(Bytes),
    /// Any values, subtracted.
    Floats(Floats),
    /// Any values, added to the scaled numbers.
    Offsets(Floats),
}

impl Zeros {
    /// The zero points from group `start` on.
    pub(crate) fn read(&self, start: usize, out: &mut [f32]) {
        match self {
            Self::Integers(values) => {
                for (out, &value) in out.iter_mut().zip(&values[start..]) {
                    *out = f32::from(value);
                }
            }
            Self::Floats(values) | Self::Offsets(values) => values.read(start, out),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Floats(values) | Self::Offsets(values) => values.len(),
        }
    }

    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Floats(values) | Self::Offsets(values) => values.byte_len(),
        }
    }
}
