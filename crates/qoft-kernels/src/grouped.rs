//! Codes, a map, scales and zero points by group: the representation that most schemes share.

mod device;

use std::ops::Range;

use crate::codes::{CodeMap, Codes};
use crate::decode::{self, Runs, SmallCodes};
use crate::device::DeviceWeight;
use crate::error::{WeightError, check_length, elements};
use crate::floats::FloatFormat;
use crate::groups::{Groups, Scales, Zeros};
use crate::weight::{PackedWeight, WeightInfo, dot_decoded};

/// Weights that are decoded at once where each has a group of its own.
const CHUNK: usize = 128;
/// Runs of one group that are decoded at once.
const RUNS: usize = 32;

/// `w[n, k] = round(round(map(code[n, k]) − zero[g]) · scale[g] · factor)`, with `g` the group of
/// `(n, k)`, computed from left to right in `f32`. Zero points, the factor and the rounding are
/// optional; without zero points the first rounding is left out.
#[derive(Debug, Clone)]
pub struct GroupedWeight {
    shape: [usize; 2],
    codes: Codes,
    map: CodeMap,
    /// The numbers of all codes, if there are at most 16.
    small: Option<[f32; 16]>,
    groups: Groups,
    scales: Scales,
    zeros: Option<Zeros>,
    factor: Option<f32>,
    rounding: FloatFormat,
    format: &'static str,
}

impl GroupedWeight {
    /// Puts the parts together. `format` is the name that `qoft inspect` prints.
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
        let elements = elements(shape)?;
        check_length(
            "codes",
            Codes::byte_len(codes.bits, elements),
            codes.bytes.len(),
        )?;
        map.check(&codes)?;
        groups.check(shape)?;
        scales.check(groups.count(shape))?;
        Ok(Self {
            shape,
            small: map.small(codes.bits),
            codes,
            map,
            groups,
            scales,
            zeros: None,
            factor: None,
            rounding: FloatFormat::F32,
            format,
        })
    }

    /// Subtracts a zero point from every number, before it is scaled.
    ///
    /// # Errors
    /// If there is not one for each group.
    pub fn with_zeros(mut self, zeros: Zeros) -> Result<Self, WeightError> {
        check_length("zero points", self.groups.count(self.shape), zeros.len())?;
        self.zeros = Some(zeros);
        Ok(self)
    }

    /// Multiplies every weight by `factor`, after its scale.
    #[must_use]
    pub fn with_factor(mut self, factor: f32) -> Self {
        self.factor = Some(factor);
        self
    }

    /// Rounds after the subtraction and at the end.
    #[must_use]
    pub fn with_rounding(mut self, rounding: FloatFormat) -> Self {
        self.rounding = rounding;
        self
    }

    /// How codes of at most 4 bits become weights.
    fn small_codes<'a>(&'a self, numbers: &'a [f32; 16]) -> SmallCodes<'a> {
        SmallCodes {
            bytes: &self.codes.bytes,
            bits: self.codes.bits,
            numbers,
            round_zero: self.zeros.is_some(),
            factor: self.factor.unwrap_or(1.0),
            rounding: self.rounding,
        }
    }

    /// The scales and zero points of some groups; those that follow each other are read together.
    fn read_parts(&self, group: impl Fn(usize) -> usize, scales: &mut [f32], zeros: &mut [f32]) {
        let count = scales.len();
        let mut at = 0;
        while at < count {
            let first = group(at);
            let run = (1..count - at).find(|&i| group(at + i) != first + i);
            let run = run.unwrap_or(count - at);
            self.scales.read(first, &mut scales[at..at + run]);
            if let Some(values) = &self.zeros {
                values.read(first, &mut zeros[at..at + run]);
            }
            at += run;
        }
    }

    /// From numbers to weights, for numbers of one group.
    fn finish_group(&self, scale: f32, zero: f32, out: &mut [f32]) {
        if self.zeros.is_some() {
            decode::subtract(out, zero);
            self.rounding.round(out);
        }
        decode::scale(out, scale);
        self.finish(out);
    }

    /// The last steps, the same for all groups.
    fn finish(&self, out: &mut [f32]) {
        if let Some(factor) = self.factor {
            decode::scale(out, factor);
        }
        self.rounding.round(out);
    }

    /// Decodes a piece of a row in which neighbours are in different groups: `groups` tells that
    /// of the weight at a flat index.
    fn decode_varying(&self, start: usize, groups: impl Fn(usize) -> usize, out: &mut [f32]) {
        let (mut scales, mut zeros) = ([0.0; CHUNK], [0.0; CHUNK]);
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            let start = start + chunk * CHUNK;
            match &self.small {
                Some(table) => {
                    decode::table16(&self.codes.bytes, self.codes.bits, start, table, out);
                }
                None => self.map.decode_bytes(&self.codes.bytes[start..], out),
            }
            let (scales, zeros) = (&mut scales[..out.len()], &mut zeros[..out.len()]);
            self.read_parts(|i| groups(start + i), scales, zeros);
            if self.zeros.is_some() {
                decode::subtract_each(out, zeros);
                self.rounding.round(out);
            }
            decode::scale_each(out, scales);
            self.finish(out);
        }
    }

    /// Columns `cols` of a row, where groups follow each other.
    fn span(&self, row: usize, cols: &Range<usize>) -> Option<Span> {
        let k = self.shape[1];
        let first = row * k;
        let (at, end) = (first + cols.start, first + cols.end);
        let (group, group_end, size) = match &self.groups {
            Groups::Blocks([height, width]) => {
                let block = cols.start / width;
                let block_end = (block + 1).saturating_mul(*width);
                let group = row / height * k.div_ceil(*width) + block;
                (group, first.saturating_add(block_end), *width)
            }
            Groups::Flat(size) => (at / size, (at / size + 1) * size, *size),
            Groups::Interleaved(_) | Groups::Indexed { .. } => return None,
        };
        Some(Span {
            at,
            end,
            group,
            group_end,
            size,
        })
    }

    /// Calls `f` with pieces of a span, the flat index at which each starts, and its length.
    fn pieces(&self, span: Span, mut f: impl FnMut(usize, usize, Runs)) {
        let Span {
            mut at,
            end,
            mut group,
            mut group_end,
            size,
        } = span;
        let (mut scales, mut zeros) = ([0.0; RUNS], [0.0; RUNS]);
        while at < end {
            let more = end.saturating_sub(group_end).div_ceil(size);
            let count = (1 + more).min(RUNS);
            let last = group_end.saturating_add((count - 1).saturating_mul(size));
            let (scales, zeros) = (&mut scales[..count], &mut zeros[..count]);
            self.scales.read(group, scales);
            if let Some(values) = &self.zeros {
                values.read(group, zeros);
            }
            let first = group_end - at;
            let length = last.min(end) - at;
            f(
                at,
                length,
                Runs {
                    first,
                    size,
                    scales,
                    zeros,
                },
            );
            at += length;
            group += count;
            group_end = last.saturating_add(size);
        }
    }

    /// Decodes a span.
    fn decode_span(&self, span: Span, mut out: &mut [f32]) {
        let small = self.small.as_ref().map(|small| self.small_codes(small));
        self.pieces(span, |start, length, runs| {
            let (piece, rest) = std::mem::take(&mut out).split_at_mut(length);
            match &small {
                Some(codes) => codes.decode(start, runs, piece),
                None => {
                    self.map.decode_bytes(&self.codes.bytes[start..], piece);
                    for (run, scale, zero) in runs.of_mut(piece) {
                        self.finish_group(scale, zero, run);
                    }
                }
            }
            out = rest;
        });
    }
}

/// A range of flat indices that lies in consecutive groups.
struct Span {
    at: usize,
    end: usize,
    /// The group of the first weight, and where it ends.
    group: usize,
    group_end: usize,
    /// Size of the groups.
    size: usize,
}

impl PackedWeight for GroupedWeight {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let k = self.shape[1];
        let mut tables = Vec::new();
        for (row, out) in rows.zip(out.chunks_exact_mut(cols.len())) {
            let first = row * k;
            let flat = (first + cols.start, first + cols.end);
            match &self.groups {
                Groups::Blocks(_) | Groups::Flat(_) => {
                    if let Some(span) = self.span(row, &cols) {
                        self.decode_span(span, out);
                    }
                }
                Groups::Interleaved(count) => self.decode_varying(flat.0, |at| at % count, out),
                Groups::Indexed { index, count } => match &self.small {
                    Some(small) => {
                        let codes = self.small_codes(small);
                        let (mut scale, mut zero) = ([0.0], [0.0]);
                        tables.clear();
                        tables.extend((row * count..(row + 1) * count).map(|group| {
                            self.read_parts(|_| group, &mut scale, &mut zero);
                            codes.table(scale[0], zero[0])
                        }));
                        codes.decode_indexed(flat.0, &index[cols.clone()], &tables, out);
                    }
                    None => {
                        let group = |at: usize| row * count + index[at - first] as usize;
                        self.decode_varying(flat.0, group, out);
                    }
                },
            }
        }
    }

    fn dot(&self, row: usize, x: &[f32]) -> f32 {
        let span = self.span(row, &(0..x.len()));
        let (Some(span), Some(small)) = (span, &self.small) else {
            return dot_decoded(self, row, x);
        };
        let codes = self.small_codes(small);
        let (mut sum, first) = (0.0, span.at);
        self.pieces(span, |start, length, runs| {
            sum += codes.dot(start, runs, &x[start - first..][..length]);
        });
        sum
    }

    fn device_weight(&self) -> Option<DeviceWeight> {
        self.words()
    }

    fn packed_bytes(&self) -> usize {
        let zeros = self.zeros.as_ref().map_or(0, Zeros::byte_len);
        self.codes.bytes.len()
            + self.scales.byte_len()
            + zeros
            + self.map.byte_len()
            + self.groups.byte_len()
    }

    fn info(&self) -> WeightInfo {
        WeightInfo {
            bits: self.codes.bits,
            group_size: self.groups.size(self.shape),
            format: self.format.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::floats::Floats;

    fn floats(values: impl IntoIterator<Item = f32>, format: FloatFormat) -> Floats {
        Floats::from_f32(&values.into_iter().collect::<Vec<_>>(), format).unwrap()
    }

    const SHAPE: [usize; 2] = [6, 11];

    /// The group of weight `(n, k)`.
    type GroupOf = fn(usize, usize) -> usize;

    /// Every kind of group on a matrix of 6 × 11, with the group of each weight.
    fn all_groups() -> Vec<(Groups, GroupOf)> {
        let index: Arc<[u32]> = [2, 0, 1, 1, 2, 0, 0, 0, 2, 1, 2].into();
        vec![
            (Groups::ROW, |n, _| n),
            (Groups::TENSOR, |_, _| 0),
            (Groups::Blocks([1, 4]), |n, k| n * 3 + k / 4),
            (Groups::Blocks([4, 3]), |n, k| n / 4 * 4 + k / 3),
            (Groups::Flat(7), |n, k| (n * 11 + k) / 7),
            (Groups::Interleaved(22), |n, k| (n * 11 + k) % 22),
            (Groups::Interleaved(3), |n, k| (n * 11 + k) % 3),
            (Groups::Indexed { index, count: 3 }, |n, k| {
                n * 3 + [2, 0, 1, 1, 2, 0, 0, 0, 2, 1, 2][k]
            }),
        ]
    }

    /// The definition, for unsigned codes with zero points, all of them rounded to `format`.
    fn check(bits: u32, zeros: bool, factor: Option<f32>, format: FloatFormat) {
        let codes = Codes::pack(bits, (0..66u32).map(|i| (i * 37 + 11) as u8));
        for (groups, group) in all_groups() {
            let count = groups.count(SHAPE);
            let scale: Vec<f32> = (0..count).map(|g| (g as f32 + 1.0) * 0.37 - 2.0).collect();
            let zero: Vec<f32> = (0..count).map(|g| (g * 5 % 7) as f32 * 0.9).collect();
            let scales = Scales::Plain(floats(scale.clone(), FloatFormat::F32));
            let mut weight = GroupedWeight::new(
                SHAPE,
                codes.clone(),
                CodeMap::Unsigned,
                groups.clone(),
                scales,
                "test",
            )
            .unwrap()
            .with_rounding(format);
            if zeros {
                let zeros = Zeros::Floats(floats(zero.clone(), FloatFormat::F32));
                weight = weight.with_zeros(zeros).unwrap();
            }
            if let Some(factor) = factor {
                weight = weight.with_factor(factor);
            }
            let round = |v: f32| {
                let mut v = [v];
                format.round(&mut v);
                v[0]
            };
            let value = |n: usize, k: usize| {
                let g = group(n, k);
                let number = f32::from(codes.get(n * SHAPE[1] + k));
                let number = if zeros {
                    round(number - zero[g])
                } else {
                    number
                };
                round(number * scale[g] * factor.unwrap_or(1.0))
            };
            for r0 in 0..SHAPE[0] {
                for c0 in 0..SHAPE[1] {
                    let mut out = vec![f32::NAN; (SHAPE[0] - r0) * (SHAPE[1] - c0)];
                    weight.decode_tile(r0..SHAPE[0], c0..SHAPE[1], &mut out);
                    let expected: Vec<f32> = (r0..SHAPE[0])
                        .flat_map(|r| (c0..SHAPE[1]).map(move |c| value(r, c)))
                        .collect();
                    assert_eq!(out, expected, "{groups:?}, tile from ({r0}, {c0})");
                }
            }
        }
    }

    #[test]
    fn every_tile_equals_the_definition() {
        for bits in [1, 2, 3, 4, 8] {
            for format in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
                check(bits, true, None, format);
            }
            check(bits, false, Some(0.3), FloatFormat::F16);
        }
    }

    #[test]
    fn wrong_parts_are_refused() {
        let make = |codes: usize, scales: usize, groups| {
            let codes = Codes::pack(4, vec![0; 2 * codes]);
            let scales = Scales::Plain(floats(vec![1.0; scales], FloatFormat::F16));
            GroupedWeight::new([4, 4], codes, CodeMap::Unsigned, groups, scales, "test")
        };
        assert!(make(8, 4, Groups::Flat(4)).is_ok());
        let error = make(7, 4, Groups::Flat(4)).unwrap_err();
        let expected = WeightError::Length {
            part: "codes",
            expected: 8,
            found: 7,
        };
        assert_eq!(error, expected);
        assert!(make(8, 3, Groups::Flat(4)).is_err());
        assert!(make(8, 4, Groups::Flat(0)).is_err());
        assert!(make(8, 3, Groups::Interleaved(3)).is_err());
        let index = |last: u32| Groups::Indexed {
            index: [0, 1, 1, last].into(),
            count: 2,
        };
        assert!(make(8, 8, index(0)).is_ok());
        let error = make(8, 8, index(2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "input feature 3 is in group 2, there are only 2"
        );
        let zeros = Zeros::Integers(vec![0; 3].into());
        assert!(make(8, 4, Groups::ROW).unwrap().with_zeros(zeros).is_err());
    }
}
