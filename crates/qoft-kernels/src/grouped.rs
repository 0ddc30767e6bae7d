//! Codes, a map, scales and zero points by group: the representation that most schemes share.

use std::ops::Range;

use crate::codes::{CodeMap, Codes};
use crate::decode;
use crate::error::{WeightError, check_length, elements};
use crate::floats::FloatFormat;
use crate::groups::{Groups, Scales, Zeros};
use crate::weight::{PackedWeight, WeightInfo};

/// Weights that are decoded at once where each has a group of its own.
const CHUNK: usize = 128;

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

    /// Decodes `out.len()` weights from flat index `start`, all of one group.
    fn decode_run(&self, start: usize, group: usize, out: &mut [f32]) {
        match &self.small {
            Some(_) => {
                let table = self.group_table(group);
                decode::table16(&self.codes.bytes, self.codes.bits, start, &table, out);
            }
            None => {
                self.map.decode_bytes(&self.codes.bytes[start..], out);
                self.finish_group(group, out);
            }
        }
    }

    /// The weights of all codes in one group.
    fn group_table(&self, group: usize) -> [f32; 16] {
        let mut table = self.small.expect("at most 16 codes");
        self.finish_group(group, &mut table);
        table
    }

    /// From numbers to weights, for numbers of one group.
    fn finish_group(&self, group: usize, out: &mut [f32]) {
        if let Some(zeros) = &self.zeros {
            let mut zero = [0.0];
            zeros.read(group, &mut zero);
            decode::subtract(out, zero[0]);
            self.rounding.round(out);
        }
        decode::scale(out, self.scales.get(group));
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
            // Neighbours in groups that follow each other are read together.
            let mut at = 0;
            while at < out.len() {
                let group = groups(start + at);
                let run = (1..out.len() - at)
                    .find(|&i| groups(start + at + i) != group + i)
                    .unwrap_or(out.len() - at);
                self.scales.read(group, &mut scales[at..at + run]);
                if let Some(values) = &self.zeros {
                    values.read(group, &mut zeros[at..at + run]);
                }
                at += run;
            }
            if self.zeros.is_some() {
                decode::subtract_each(out, zeros);
                self.rounding.round(out);
            }
            decode::scale_each(out, scales);
            self.finish(out);
        }
    }

    /// Decodes a range of flat indices in runs of one group: `group_and_end` tells the group of
    /// an index, and where that group ends.
    fn decode_runs(
        &self,
        (mut at, end): (usize, usize),
        group_and_end: impl Fn(usize) -> (usize, usize),
        mut out: &mut [f32],
    ) {
        while at < end {
            let (group, group_end) = group_and_end(at);
            let (run, rest) = out.split_at_mut(group_end.min(end) - at);
            self.decode_run(at, group, run);
            at += run.len();
            out = rest;
        }
    }
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
                Groups::Blocks([height, width]) => {
                    let before = row / height * k.div_ceil(*width);
                    let block = |at: usize| {
                        let block = (at - first) / width;
                        let end = block.saturating_add(1).saturating_mul(*width);
                        (before + block, first.saturating_add(end))
                    };
                    self.decode_runs(flat, block, out);
                }
                Groups::Flat(size) => {
                    self.decode_runs(flat, |at| (at / size, (at / size + 1) * size), out);
                }
                Groups::Interleaved(count) => self.decode_varying(flat.0, |at| at % count, out),
                Groups::Indexed { index, count } if self.small.is_some() => {
                    tables.clear();
                    tables.extend((0..*count).map(|g| self.group_table(row * count + g)));
                    let (bytes, index) = (&self.codes.bytes, &index[cols.clone()]);
                    decode::indexed_tables(bytes, self.codes.bits, flat.0, index, &tables, out);
                }
                Groups::Indexed { index, count } => {
                    let group = |at: usize| row * count + index[at - first] as usize;
                    self.decode_varying(flat.0, group, out);
                }
            }
        }
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
