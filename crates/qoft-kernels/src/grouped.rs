//! Codes, a map, scales and zero points by group: the representation that most schemes share.

mod builder;
mod device;
mod rows;
mod sorted;
mod span;

use std::ops::Range;

pub use self::builder::GroupedBuilder;
use self::span::Span;
use crate::codes::{CodeMap, Codes};
use crate::decode::{self, SmallCodes, ZeroStep};
use crate::device::DeviceWeight;
use crate::floats::FloatFormat;
use crate::groups::{Groups, Scales, Zeros};
use crate::row::InputRow;
use crate::weight::{PackedWeight, WeightInfo, dot_decoded};

/// Weights that are decoded at once where each has a group of its own.
const CHUNK: usize = 128;

/// `w[n, k] = round(round(map(code[n, k]) − zero[g]) · scale[g] · factor)`, with `g` the group of
/// `(n, k)`, computed from left to right in `f32`. Zero points, the factor and the rounding are
/// optional; without zero points the first rounding is left out. Where zero points are offsets, it is
/// `round(round(map(code[n, k]) · scale[g] · factor) + offset[g])`.
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
    /// What zero points do. Differences of integers need not be rounded.
    fn zero_step(&self) -> ZeroStep {
        match &self.zeros {
            Some(Zeros::Offsets(_)) => ZeroStep::Add,
            Some(Zeros::Floats(_)) => ZeroStep::SubtractAndRound,
            Some(Zeros::Integers(_)) if !self.map.is_integer() => ZeroStep::SubtractAndRound,
            Some(Zeros::Integers(_)) | None => ZeroStep::Subtract,
        }
    }

    /// How codes of at most 4 bits become weights.
    fn small_codes<'a>(&'a self, numbers: &'a [f32; 16]) -> SmallCodes<'a> {
        SmallCodes {
            bytes: &self.codes.bytes,
            bits: self.codes.bits,
            order: self.codes.order,
            numbers,
            zero_step: self.zero_step(),
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
        let step = self.zero_step();
        if self.zeros.is_some() && step != ZeroStep::Add {
            decode::subtract(out, zero);
        }
        if step == ZeroStep::SubtractAndRound {
            self.rounding.round(out);
        }
        decode::scale(out, scale);
        self.finish(out);
        if step == ZeroStep::Add {
            decode::add(out, zero);
            self.rounding.round(out);
        }
    }

    /// What follows the scale, the same for all groups.
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
                    let kind = (self.codes.bits, self.codes.order);
                    decode::table16(&self.codes.bytes, kind, start, table, out);
                }
                None => self.map.decode(&self.codes, start, out),
            }
            let (scales, zeros) = (&mut scales[..out.len()], &mut zeros[..out.len()]);
            self.read_parts(|i| groups(start + i), scales, zeros);
            let step = self.zero_step();
            if self.zeros.is_some() && step != ZeroStep::Add {
                decode::subtract_each(out, zeros);
            }
            if step == ZeroStep::SubtractAndRound {
                self.rounding.round(out);
            }
            decode::scale_each(out, scales);
            self.finish(out);
            if step == ZeroStep::Add {
                decode::add_each(out, zeros);
                self.rounding.round(out);
            }
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
                    self.map.decode(&self.codes, start, piece);
                    for (run, scale, zero) in runs.of(length) {
                        self.finish_group(scale, zero, &mut piece[run]);
                    }
                }
            }
            out = rest;
        });
    }

    /// Whether codes are bytes that may be added up before they are scaled: integers without
    /// roundings and offsets.
    fn sums_first(&self) -> bool {
        self.codes.bits == 8
            && self.map.is_integer()
            && self.rounding == FloatFormat::F32
            && self.zero_step() != ZeroStep::Add
    }

    /// The product of a row with `x`.
    fn dot_row(&self, row: usize, x: &[f32]) -> f32 {
        let Some(span) = self.span(row, &(0..x.len())) else {
            return dot_decoded(self, row, x);
        };
        let (mut sum, first) = (0.0, span.at);
        let signed = matches!(self.map, CodeMap::Int8);
        match &self.small {
            Some(small) => {
                let codes = self.small_codes(small);
                self.pieces(span, |start, length, runs| {
                    sum += codes.dot(start, runs, &x[start - first..][..length]);
                });
            }
            None if self.sums_first() => {
                self.pieces(span, |start, length, runs| {
                    let codes = &self.codes.bytes[start..start + length];
                    let x = &x[start - first..][..length];
                    for (run, scale, zero) in runs.of(length) {
                        let product = decode::dot_bytes(&codes[run.clone()], signed, zero, &x[run]);
                        sum += product * scale;
                    }
                });
                sum *= self.factor.unwrap_or(1.0);
            }
            None => sum = dot_decoded(self, row, x),
        }
        sum
    }
}

impl PackedWeight for GroupedWeight {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let k = self.shape[1];
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
                Groups::Indexed { index, count } => {
                    let group = |at: usize| row * count + index[at - first] as usize;
                    self.decode_varying(flat.0, group, out);
                }
            }
        }
    }

    fn dot(&self, rows: Range<usize>, x: &InputRow, out: &mut [f32]) {
        if let Some(whole) = self.whole_rows() {
            return self.dot_whole(&whole, rows, x.spread(), out);
        }
        for (row, out) in rows.zip(out) {
            *out = self.dot_row(row, x.values());
        }
    }

    fn rows_in_memory(&self) -> Option<&[u8]> {
        let [rows, cols] = self.shape;
        let bits = cols * self.codes.bits as usize;
        // Codes of rows that end inside of a byte do not begin where bytes do.
        let whole = bits.is_multiple_of(8).then_some(rows * bits / 8)?;
        self.codes.bytes.get(..whole)
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
        WeightInfo::quantized(self.codes.bits, self.groups.size(self.shape), self.format)
    }
}

#[cfg(test)]
mod tests;
