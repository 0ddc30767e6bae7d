//! Codes of 1 to 4 bits, whose at most 16 weights in a group fit one table.

use super::{aligned, each_code};
use crate::floats::FloatFormat;
use crate::scratch::with_scratch;
use crate::simd::arch;
use crate::vector::dot;

/// Codes of at most 4 bits and how they become weights:
/// `round(round(number − zero) · scale · factor)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SmallCodes<'a> {
    /// The stream of codes, least significant bits first.
    pub bytes: &'a [u8],
    /// Bits of a code.
    pub bits: u32,
    /// The number of each code.
    pub numbers: &'a [f32; 16],
    /// Whether there are zero points, after whose subtraction is rounded.
    pub round_zero: bool,
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
    /// The parts of a piece with their scales and zero points.
    pub fn of_mut<'b>(
        self,
        mut piece: &'b mut [f32],
    ) -> impl Iterator<Item = (&'b mut [f32], f32, f32)> + use<'a, 'b> {
        let mut length = self.first;
        self.scales
            .iter()
            .zip(self.zeros)
            .map(move |(&scale, &zero)| {
                let here = length.min(piece.len());
                let (run, rest) = std::mem::take(&mut piece).split_at_mut(here);
                (length, piece) = (self.size, rest);
                (run, scale, zero)
            })
    }
}

impl SmallCodes<'_> {
    /// The weights of all codes in one group.
    pub fn table(&self, scale: f32, zero: f32) -> [f32; 16] {
        let mut table = self.numbers.map(|number| number - zero);
        if self.round_zero {
            self.rounding.round(&mut table);
        }
        table.iter_mut().for_each(|w| *w = *w * scale * self.factor);
        self.rounding.round(&mut table);
        table
    }

    /// Decodes a piece from code `start` on.
    pub fn decode(&self, mut start: usize, runs: Runs, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            return unsafe { super::x86::runs_avx512(self, start, runs, out) };
        }
        for (run, scale, zero) in runs.of_mut(out) {
            let table = self.table(scale, zero);
            super::table16(self.bytes, self.bits, start, &table, run);
            start += run.len();
        }
    }

    /// The product of a piece from code `start` on with `x`.
    pub fn dot(&self, start: usize, runs: Runs, x: &[f32]) -> f32 {
        #[cfg(target_arch = "x86_64")]
        if self.bits == 4
            && start.is_multiple_of(8)
            && runs.first.is_multiple_of(8)
            && runs.size.is_multiple_of(8)
            && std::arch::is_x86_feature_detected!("avx512f")
        {
            // SAFETY: the feature was just detected.
            return unsafe { super::x86::dot_avx512(self, start, runs, x) };
        }
        with_scratch(x.len(), |values| {
            self.decode(start, runs, values);
            arch().dispatch(|| dot(x, values))
        })
    }

    /// `out[i] = tables[index[i]][code(start + i)]`.
    ///
    /// # Panics
    /// If an index is no table.
    pub fn decode_indexed(
        &self,
        start: usize,
        index: &[u32],
        tables: &[[f32; 16]],
        out: &mut [f32],
    ) {
        let look_up = |code, i: usize| tables[index[i] as usize][code];
        let skipped = out.len();
        let (codes, out) = aligned(self.bytes, self.bits, start, out, look_up);
        let skipped = skipped - out.len();
        each_code(codes, self.bits, out, |code, i| look_up(code, skipped + i));
    }
}

#[cfg(test)]
mod tests {
    use super::super::code;
    use super::*;

    fn bytes() -> Vec<u8> {
        (0..64u32).map(|i| (i * 151 + 7) as u8).collect()
    }

    #[test]
    fn runs_decode_every_code_with_its_table() {
        let (bytes, numbers) = (bytes(), std::array::from_fn(|i| i as f32 * 0.37 - 2.0));
        let scales = [0.5, -1.3, 2.0, 1e-7, 0.1];
        let x: [f32; 114] = std::array::from_fn(|i| (i * 29 % 31) as f32 / 15.0 - 1.0);
        for rounding in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
            for bits in 1..=4 {
                for (start, first, size) in [(0, 3, 30), (8, 8, 32), (5, 16, 27), (13, 24, 24)] {
                    let zeros = if start == 8 {
                        [0.0; 5]
                    } else {
                        [0.0, 1.5, -0.3, 2.0, 7.0]
                    };
                    let codes = SmallCodes {
                        bytes: &bytes,
                        bits,
                        numbers: &numbers,
                        round_zero: start != 8,
                        factor: 0.7,
                        rounding,
                    };
                    let (scales, zeros) = (&scales, &zeros);
                    let runs = Runs {
                        first,
                        size,
                        scales,
                        zeros,
                    };
                    let mut out = [f32::NAN; 114];
                    codes.decode(start, runs, &mut out);
                    let mut product = 0.0;
                    for (i, (&found, x)) in out.iter().zip(x).enumerate() {
                        let group = (i + size - first) / size;
                        let table = codes.table(scales[group], zeros[group]);
                        let code = usize::from(code(&bytes, bits, start + i));
                        assert_eq!(found, table[code], "{bits} bits, {rounding:?}, weight {i}");
                        product += f64::from(found) * f64::from(x);
                    }
                    let found = f64::from(codes.dot(start, runs, &x));
                    assert!((found - product).abs() < 1e-4, "{found} {product}");
                }
            }
        }
    }

    #[test]
    fn indexed_tables_decode_every_code() {
        let bytes = bytes();
        let tables: Vec<[f32; 16]> = (0..3)
            .map(|t| std::array::from_fn(|i| (i + 100 * t) as f32))
            .collect();
        let index: Vec<u32> = (0..50).map(|i| i * 7 % 3).collect();
        for bits in 1..=4 {
            let codes = SmallCodes {
                bytes: &bytes,
                bits,
                numbers: &[0.0; 16],
                round_zero: false,
                factor: 1.0,
                rounding: FloatFormat::F32,
            };
            for start in [0, 5, 8] {
                let mut out = vec![0.0; index.len()];
                codes.decode_indexed(start, &index, &tables, &mut out);
                for (i, &value) in out.iter().enumerate() {
                    let code = usize::from(code(&bytes, bits, start + i));
                    assert_eq!(value, tables[index[i] as usize][code]);
                }
            }
        }
    }
}
