//! Codes of 1 to 4 bits, whose at most 16 weights in a group fit one table.

use std::ops::Range;

use pulp::Simd;
use pulp::bytemuck::cast_slice;

use super::look_up::{LookUp, STEP, TableOp, dispatch, round};
use crate::floats::FloatFormat;
use crate::nibble_order::NibbleOrder;

/// Sums that run beside each other, and steps that are taken together.
const SLOTS: usize = 4;

/// What the zero point of a group does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ZeroStep {
    /// It is subtracted before numbers are scaled.
    Subtract,
    /// As before, and the difference is rounded.
    SubtractAndRound,
    /// It is added after numbers were scaled and rounded, and the sum is rounded.
    Add,
}

/// Codes of at most 4 bits and how they become weights: `round((number − zero) · scale · factor)`, or
/// as their [`ZeroStep`] says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SmallCodes<'a> {
    /// The stream of codes, least significant bits first.
    pub bytes: &'a [u8],
    /// Bits of a code.
    pub bits: u32,
    /// The order of codes of 4 bits.
    pub order: NibbleOrder,
    /// The number of each code; again and again where codes have fewer than four bits.
    pub numbers: &'a [f32; 16],
    /// What zero points do.
    pub zero_step: ZeroStep,
    /// Multiplies all weights.
    pub factor: f32,
    /// The format to round to.
    pub rounding: FloatFormat,
}

/// The groups of a piece of the stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs<'a> {
    /// How much of the piece is in the first group.
    pub first: usize,
    /// Size of the other groups; the last one may be cut off.
    pub size: usize,
    /// The scale of each.
    pub scales: &'a [f32],
    /// The zero point of each.
    pub zeros: &'a [f32],
}

impl<'a> Runs<'a> {
    /// The parts of a piece of `length` weights with their scales and zero points.
    #[inline(always)]
    pub fn of(self, length: usize) -> impl Iterator<Item = (Range<usize>, f32, f32)> + use<'a> {
        let parts = self.scales.iter().zip(self.zeros);
        let (mut start, mut end) = (0, self.first);
        parts.map(move |(&scale, &zero)| {
            let here = start..end.min(length);
            start = here.end;
            end = start.saturating_add(self.size);
            (here, scale, zero)
        })
    }
}

impl SmallCodes<'_> {
    /// Decodes a piece from code `start` on.
    pub fn decode(&self, start: usize, runs: Runs, out: &mut [f32]) {
        let codes = self;
        dispatch(Decode(Piece { codes, start, runs }, out));
    }

    /// The product of a piece from code `start` on with `x`.
    pub fn dot(&self, start: usize, runs: Runs, x: &[f32]) -> f32 {
        let codes = self;
        dispatch(Dot(Piece { codes, start, runs }, x))
    }

    /// The weights of all codes in a group.
    #[inline(always)]
    pub(super) fn table<S: LookUp<V>, const V: usize>(
        &self,
        simd: S,
        scale: f32,
        zero: f32,
    ) -> [S::f32s; V] {
        let (numbers, _) = S::as_simd_f32s(self.numbers);
        let (zero, scale) = (simd.splat_f32s(zero), simd.splat_f32s(scale));
        let factor = simd.splat_f32s(self.factor);
        let mut table = [zero; V];
        let added = self.zero_step == ZeroStep::Add;
        for (weight, &number) in table.iter_mut().zip(numbers) {
            let mut number = number;
            if !added {
                number = simd.sub_f32s(number, zero);
            }
            if self.zero_step == ZeroStep::SubtractAndRound {
                number = round(simd, self.rounding, number);
            }
            let scaled = simd.mul_f32s(simd.mul_f32s(number, scale), factor);
            *weight = round(simd, self.rounding, scaled);
            if added {
                *weight = round(simd, self.rounding, simd.add_f32s(*weight, zero));
            }
        }
        table
    }

    /// The 16 codes from `index` on as the two words of a step, in the order of a bit stream; zeros
    /// beyond the end.
    fn words(&self, index: usize) -> u64 {
        let bits = self.bits as usize;
        let (byte, shift) = (index * bits / 8, index * bits % 8);
        let [low, high] = [byte, byte + bits].map(|start| {
            let bytes = self.bytes.get(start..).unwrap_or_default();
            let mut word = [0; 8];
            match bytes.first_chunk() {
                Some(bytes) => word = *bytes,
                None => word[..bytes.len()].copy_from_slice(bytes),
            }
            let mut word = u64::from_le_bytes(word);
            if self.order == NibbleOrder::HighFirst {
                word = (word >> 4 & LOW_HALVES) | (word & LOW_HALVES) << 4;
            }
            u64::from((word >> shift) as u32)
        });
        high << 32 | low
    }
}

/// The low half of each byte.
const LOW_HALVES: u64 = 0x0f0f_0f0f_0f0f_0f0f;

/// The two words of a step that begins with a byte.
#[inline(always)]
fn words<const BITS: usize>(codes: &[[u8; BITS]; 2]) -> u64 {
    let mut word = 0;
    for (i, byte) in codes.as_flattened().iter().enumerate() {
        // The second eight codes begin with the upper half.
        let at = if i < BITS { i } else { i - BITS + 4 };
        word |= u64::from(*byte) << (8 * at);
    }
    word
}

/// A table in registers, for codes of `BITS` bits. `FLIP` is 1 where the two codes of a byte are the
/// other way round than in a bit stream, and 0 where they are not.
#[derive(Clone, Copy)]
struct Table<S: LookUp<V>, const V: usize, const BITS: usize, const FLIP: usize> {
    simd: S,
    weights: [S::f32s; V],
}

impl<S: LookUp<V>, const V: usize, const BITS: usize, const FLIP: usize> Table<S, V, BITS, FLIP> {
    /// Where the codes of a step begin in their words.
    const SHIFTS: [u32; STEP] = {
        let (mut shifts, mut i) = ([0; STEP], 0);
        while i < STEP {
            shifts[i] = (((i % 8) ^ FLIP) * BITS) as u32;
            i += 1;
        }
        shifts
    };

    /// The weights of a step.
    #[inline(always)]
    fn step(self, words: u64) -> [S::f32s; V] {
        let (shifts, _) = S::as_simd_u32s(&Self::SHIFTS);
        let mut weights = self.weights;
        for (v, weight) in weights.iter_mut().enumerate() {
            let words = self.simd.words(words, v);
            let codes = self.simd.wrapping_dyn_shr_u32s(words, shifts[v]);
            *weight = self.simd.look_up(self.weights, codes);
        }
        weights
    }

    /// Stores the weights of a run.
    #[inline(always)]
    fn store(self, codes: Steps<BITS>, out: &mut [[f32; STEP]]) {
        for (out, codes) in out.iter_mut().zip(codes) {
            let (out, _) = S::as_mut_simd_f32s(out);
            out.copy_from_slice(&self.step(words(codes)));
        }
    }

    /// Adds the products of a run with `x` to sums that run beside each other.
    #[inline(always)]
    fn add(self, codes: Steps<BITS>, x: &[[f32; STEP]], sums: &mut [S::f32s; SLOTS]) {
        let ((x, x_rest), (codes, rest)) = (x.as_chunks::<4>(), codes.as_chunks::<4>());
        for (x, codes) in x.iter().zip(codes) {
            add(self.simd, sums, self.steps(codes), x);
        }
        let ((x, x_rest), (codes, rest)) = (x_rest.as_chunks::<2>(), rest.as_chunks::<2>());
        for (x, codes) in x.iter().zip(codes) {
            add(self.simd, sums, self.steps(codes), x);
        }
        for (x, codes) in x_rest.iter().zip(rest) {
            add(self.simd, sums, self.steps(&[*codes]), &[*x]);
        }
    }

    /// The weights of some steps.
    #[inline(always)]
    fn steps<const STEPS: usize>(self, codes: &[[[u8; BITS]; 2]; STEPS]) -> [[S::f32s; V]; STEPS] {
        let mut weights = [self.weights; STEPS];
        for (weights, codes) in weights.iter_mut().zip(codes) {
            *weights = self.step(words(codes));
        }
        weights
    }
}

/// A piece of the stream, from code `start` on.
#[derive(Clone, Copy)]
struct Piece<'a> {
    codes: &'a SmallCodes<'a>,
    start: usize,
    runs: Runs<'a>,
}

/// Steps that begin with a byte: the codes of each, eight and eight.
type Steps<'a, const BITS: usize> = &'a [[[u8; BITS]; 2]];

impl<'a> Piece<'a> {
    /// The codes of the first `length` weights, if all runs consist of whole steps that begin with
    /// a byte; what is left of the last step is not among them.
    #[inline(always)]
    fn steps<const BITS: usize>(self, length: usize) -> Option<Steps<'a, BITS>> {
        let Runs { first, size, .. } = self.runs;
        let odd = first < length && !(first.is_multiple_of(STEP) && size.is_multiple_of(STEP));
        if odd || !self.start.is_multiple_of(8) {
            return None;
        }
        let (eights, _) = self.codes.bytes.as_chunks::<BITS>();
        let start = self.start / 8;
        let eights = eights.get(start..start + length / STEP * 2)?;
        Some(eights.as_chunks().0)
    }

    /// The table of a run.
    #[inline(always)]
    fn table<S: LookUp<V>, const V: usize, const BITS: usize, const FLIP: usize>(
        self,
        simd: S,
        run: usize,
    ) -> Table<S, V, BITS, FLIP> {
        let (scale, zero) = (self.runs.scales[run], self.runs.zeros[run]);
        let weights = self.codes.table(simd, scale, zero);
        Table { simd, weights }
    }

    /// Calls `f` with the weights from the `from`-th one on, and where they belong.
    #[inline(always)]
    fn rest<S: LookUp<V>, const V: usize, const BITS: usize>(
        self,
        simd: S,
        from: usize,
        length: usize,
        mut f: impl FnMut(usize, &[f32]),
    ) {
        if from == length {
            return;
        }
        for (i, (run, ..)) in self.runs.of(length).enumerate() {
            let run = run.start.max(from)..run.end;
            if run.is_empty() {
                continue;
            }
            let table = self.table::<S, V, BITS, 0>(simd, i);
            for at in run.clone().step_by(STEP) {
                let weights = table.step(self.codes.words(self.start + at));
                let weights: &[f32] = cast_slice(&weights);
                f(at, &weights[..STEP.min(run.end - at)]);
            }
        }
    }
}

struct Decode<'a>(Piece<'a>, &'a mut [f32]);

impl Decode<'_> {
    #[inline(always)]
    fn bits<S: LookUp<V>, const V: usize, const BITS: usize, const FLIP: usize>(self, simd: S) {
        let Self(piece, out) = self;
        let mut done = 0;
        if let Some(codes) = piece.steps::<BITS>(out.len()) {
            let (out, _) = out.as_chunks_mut::<STEP>();
            done = out.len() * STEP;
            let first = (piece.runs.first / STEP).min(out.len());
            let ((head, out), (head_codes, codes)) =
                (out.split_at_mut(first), codes.split_at(first));
            piece
                .table::<S, V, BITS, FLIP>(simd, 0)
                .store(head_codes, head);
            let size = (piece.runs.size / STEP).max(1);
            for (i, (out, codes)) in out.chunks_mut(size).zip(codes.chunks(size)).enumerate() {
                piece
                    .table::<S, V, BITS, FLIP>(simd, i + 1)
                    .store(codes, out);
            }
        }
        piece.rest::<S, V, BITS>(simd, done, out.len(), |at, weights| {
            out[at..at + weights.len()].copy_from_slice(weights);
        });
    }
}

impl TableOp for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: LookUp<V>, const V: usize>(self, simd: S) {
        match (self.0.codes.bits, self.0.codes.order) {
            (1, _) => self.bits::<S, V, 1, 0>(simd),
            (2, _) => self.bits::<S, V, 2, 0>(simd),
            (3, _) => self.bits::<S, V, 3, 0>(simd),
            (_, NibbleOrder::LowFirst) => self.bits::<S, V, 4, 0>(simd),
            (_, NibbleOrder::HighFirst) => self.bits::<S, V, 4, 1>(simd),
        }
    }
}

struct Dot<'a>(Piece<'a>, &'a [f32]);

impl Dot<'_> {
    #[inline(always)]
    fn bits<S: LookUp<V>, const V: usize, const BITS: usize, const FLIP: usize>(
        self,
        simd: S,
    ) -> f32 {
        let Self(piece, x) = self;
        let (mut sum, mut done) = (0.0, 0);
        if let Some(codes) = piece.steps::<BITS>(x.len()) {
            let (x, _) = x.as_chunks::<STEP>();
            done = x.len() * STEP;
            let first = (piece.runs.first / STEP).min(x.len());
            let ((head, x), (head_codes, codes)) = (x.split_at(first), codes.split_at(first));
            let mut sums = [simd.splat_f32s(0.0); SLOTS];
            piece
                .table::<S, V, BITS, FLIP>(simd, 0)
                .add(head_codes, head, &mut sums);
            let size = (piece.runs.size / STEP).max(1);
            let parts = piece.runs.scales.iter().zip(piece.runs.zeros).skip(1);
            let steps = x.chunks(size).zip(codes.chunks(size));
            for ((x, codes), (&scale, &zero)) in steps.zip(parts) {
                let weights = piece.codes.table(simd, scale, zero);
                Table::<S, V, BITS, FLIP> { simd, weights }.add(codes, x, &mut sums);
            }
            let [a, b, c, d] = sums;
            sum = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        }
        piece.rest::<S, V, BITS>(simd, done, x.len(), |at, weights| {
            for (weight, x) in weights.iter().zip(&x[at..]) {
                sum += weight * x;
            }
        });
        sum
    }
}

/// Adds the products of some steps to sums that run beside each other.
#[inline(always)]
fn add<S: Simd, const V: usize, const STEPS: usize>(
    simd: S,
    sums: &mut [S::f32s; SLOTS],
    weights: [[S::f32s; V]; STEPS],
    x: &[[f32; STEP]; STEPS],
) {
    let (x, _) = S::as_simd_f32s(x.as_flattened());
    for (i, (&weights, &x)) in weights.as_flattened().iter().zip(x).enumerate() {
        let sum = &mut sums[i % SLOTS];
        *sum = simd.mul_add_f32s(weights, x, *sum);
    }
}

impl TableOp for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: LookUp<V>, const V: usize>(self, simd: S) -> f32 {
        match (self.0.codes.bits, self.0.codes.order) {
            (1, _) => self.bits::<S, V, 1, 0>(simd),
            (2, _) => self.bits::<S, V, 2, 0>(simd),
            (3, _) => self.bits::<S, V, 3, 0>(simd),
            (_, NibbleOrder::LowFirst) => self.bits::<S, V, 4, 0>(simd),
            (_, NibbleOrder::HighFirst) => self.bits::<S, V, 4, 1>(simd),
        }
    }
}

#[cfg(test)]
mod tests;
