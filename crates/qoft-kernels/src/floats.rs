//! Floating-point numbers in the dtype of their file, and rounding to such a dtype.

use bytes::Bytes;
use half::{bf16, f16};
use pulp::Arch;
use rayon::prelude::*;

use crate::error::WeightError;
use crate::simd::arch;
use crate::transpose::transpose;
use crate::wide;

/// Values that one task turns into bytes.
const PIECE: usize = 1 << 15;

/// Storage format of a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FloatFormat {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
}

impl FloatFormat {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The distance from 1 to the next number.
    pub fn epsilon(self) -> f32 {
        match self {
            Self::F32 => f32::EPSILON,
            Self::F16 => f16::EPSILON.to_f32(),
            Self::Bf16 => bf16::EPSILON.to_f32(),
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

    /// The name in torch and in configurations of its libraries: `float32`, `float16`, `bfloat16`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Reads little-endian values from `bytes`, one for each element of `out`.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => {
                for (out, &value) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *out = f32::from_le_bytes(value);
                }
            }
            Self::F16 => {
                let bytes = bytes.as_chunks::<2>().0;
                #[cfg(target_arch = "x86_64")]
                if let Arch::V4(simd) = arch() {
                    return simd.vectorize(|| halves(simd, bytes, out));
                }
                wide!({
                    for (out, &value) in out.iter_mut().zip(bytes) {
                        *out = f16_to_f32(u16::from_le_bytes(value));
                    }
                });
            }
            Self::Bf16 => {
                for (out, &value) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(value)) << 16);
                }
            }
        }
    }

    /// Writes `values` as little-endian bytes, [`Self::size`] for each, rounding to nearest even.
    pub fn encode(self, values: &[f32], bytes: &mut [u8]) {
        match self {
            Self::F32 => {
                for (bytes, v) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *bytes = v.to_le_bytes();
                }
            }
            Self::F16 => {
                for (bytes, &v) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                    *bytes = f16::from_f32(v).to_le_bytes();
                }
            }
            Self::Bf16 => {
                for (bytes, &v) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                    *bytes = bf16::from_f32(v).to_le_bytes();
                }
            }
        }
    }

    /// `values` in this format, rounded to nearest even.
    pub fn to_bytes(self, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0; values.len() * self.size()];
        bytes
            .par_chunks_mut(PIECE * self.size())
            .zip(values.par_chunks(PIECE))
            .for_each(|(bytes, values)| self.encode(values, bytes));
        bytes
    }

    /// Rounds each value to the nearest one of this format, ties to even.
    pub fn round(self, values: &mut [f32]) {
        match self {
            Self::F32 => {}
            Self::F16 => {
                wide!(values.iter_mut().for_each(|v| *v = round_to_f16(*v)));
            }
            Self::Bf16 => {
                let rounded = |v: f32| f32::from_bits(bf16_bits(v) << 16);
                values.iter_mut().for_each(|v| *v = rounded(*v));
            }
        }
    }
}

/// The bits of the nearest bfloat16 of a number, ties to even; of no number, one that stays none.
#[inline(always)]
pub(crate) fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    // Half of the last kept bit is added, and one more where that bit is set; infinities stay.
    let up = 0x7fff + ((bits >> 16) & 1);
    match value.is_nan() {
        true => bits >> 16 | 0x40,
        false => bits.wrapping_add(up) >> 16,
    }
}

/// The nearest binary16 of a number, ties to even; NaN is not expected.
#[inline(always)]
fn round_to_f16(v: f32) -> f32 {
    let bits = v.to_bits();
    let sign = bits & 0x8000_0000;
    // As for bfloat16, with ten bits of the fraction kept.
    let up = 0xfff + ((bits >> 13) & 1);
    let normal = f32::from_bits((bits & 0x7fff_ffff).wrapping_add(up) & 0xffff_e000);
    // Where binary16 is subnormal its numbers are multiples of 2⁻²⁴, the last place of 0.75.
    let size = f32::from_bits(bits & 0x7fff_ffff);
    let rounded = if size < 6.103_515_6e-5 {
        (size + 0.75) - 0.75
    } else {
        normal
    };
    let rounded = if rounded > 65504.0 {
        f32::INFINITY
    } else {
        rounded
    };
    f32::from_bits(rounded.to_bits() | sign)
}

/// The nearest whole number, ties to even, of one that is smaller than 2²². Adding and subtracting
/// a large number rounds; unlike a call of `round` that can be done for several values at once.
#[inline(always)]
pub fn whole(value: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    (value + ROUND) - ROUND
}

/// Binary16 values, 16 at a time.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn halves(simd: pulp::x86::V4, bytes: &[[u8; 2]], out: &mut [f32]) {
    let (wide, tail) = out.as_chunks_mut::<16>();
    let (halves, _) = bytes.as_chunks::<16>();
    let rest = bytes.get(16 * wide.len()..).unwrap_or_default();
    for (out, halves) in wide.iter_mut().zip(halves) {
        *out = pulp::cast(simd.avx512f._mm512_cvtph_ps(pulp::cast(*halves)));
    }
    for (out, &half) in tail.iter_mut().zip(rest) {
        *out = f16_to_f32(u16::from_le_bytes(half));
    }
}

/// The value of a binary16, without branches and calls, so that loops over it become vectors.
#[inline(always)]
fn f16_to_f32(half: u16) -> f32 {
    let half = u32::from(half);
    // The fields move to their places; the exponents' biases differ by 112.
    let moved = ((half & 0x7fff) << 13) + (112 << 23);
    let bits = match half & 0x7c00 {
        // Subnormal: with an exponent the number has a 1 before its fraction, which is taken away.
        0 => (f32::from_bits(moved + (1 << 23)) - f32::from_bits(113 << 23)).to_bits(),
        0x7c00 => moved + (112 << 23),
        _ => moved,
    };
    f32::from_bits(bits | (half & 0x8000) << 16)
}

/// A vector of floats, kept in the dtype and at the place (a memory map) where it was found.
#[derive(Debug, Clone)]
pub struct Floats {
    bytes: Bytes,
    format: FloatFormat,
}

impl Floats {
    /// Little-endian values in `format`.
    ///
    /// # Errors
    /// If a value is infinite or not a number, or the last one is cut off.
    pub fn new(bytes: Bytes, format: FloatFormat) -> Result<Self, WeightError> {
        if !bytes.len().is_multiple_of(format.size()) {
            return Err(WeightError::Unsupported("length of a float vector"));
        }
        let mut values = [0.0; 64];
        for chunk in bytes.chunks(64 * format.size()) {
            let values = &mut values[..chunk.len() / format.size()];
            format.decode(chunk, values);
            if values.iter().any(|v| !v.is_finite()) {
                return Err(WeightError::NotFinite("scales"));
            }
        }
        Ok(Self { bytes, format })
    }

    /// Copies `values`, rounding them to `format`.
    ///
    /// # Errors
    /// If a value is not finite, or not so after rounding.
    pub fn from_f32(values: &[f32], format: FloatFormat) -> Result<Self, WeightError> {
        Self::new(format.to_bytes(values).into(), format)
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.format.size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The dtype.
    pub fn format(&self) -> FloatFormat {
        self.format
    }

    /// Bytes in use.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The values as they are stored.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The value at `index`.
    pub fn get(&self, index: usize) -> f32 {
        let mut out = [0.0];
        self.read(index, &mut out);
        out[0]
    }

    /// The values from `start` on, as many as `out` takes.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        let size = self.format.size();
        self.format
            .decode(&self.bytes[start * size..][..out.len() * size], out);
    }

    /// A matrix of `rows` × `cols` values turned over.
    ///
    /// # Panics
    /// If there are not `rows * cols` values.
    #[must_use]
    pub fn transposed(&self, rows: usize, cols: usize) -> Self {
        Self {
            bytes: transpose(&self.bytes, self.format.size(), [rows, cols]).into(),
            format: self.format,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even() {
        let values: Vec<f32> = (0..4000)
            .map(|i| (i as f32 - 2000.0) * 0.37 * 1.6f32.powi(i % 17 - 8))
            .collect();
        for (format, round) in [
            (
                FloatFormat::F16,
                (|v| f16::from_f32(v).to_f32()) as fn(f32) -> f32,
            ),
            (FloatFormat::Bf16, |v| bf16::from_f32(v).to_f32()),
            (FloatFormat::F32, |v| v),
        ] {
            let mut rounded = values.clone();
            format.round(&mut rounded);
            let expected: Vec<f32> = values.iter().map(|&v| round(v)).collect();
            assert_eq!(rounded, expected, "{format:?}");
            let bytes = format.to_bytes(&values);
            let mut decoded = vec![0.0; values.len()];
            format.decode(&bytes, &mut decoded);
            assert_eq!(decoded, expected, "{format:?}");
        }
    }

    /// Around every binary16: the number, its neighbours in `f32`, and the ties.
    #[test]
    fn rounding_to_binary16_is_right_everywhere() {
        for half in 0..0x7c00u16 {
            let [a, b] = [half, half + 1].map(|h| f16::from_bits(h).to_f32());
            let b = if b.is_finite() { b } else { 65536.0 };
            let tie = a + (b - a) / 2.0;
            for v in [
                a,
                tie.next_down(),
                tie,
                tie.next_up(),
                -tie,
                -a,
                tie.next_up() * 1e4,
            ] {
                let mut found = [v];
                FloatFormat::F16.round(&mut found);
                assert_eq!(
                    found[0].to_bits(),
                    f16::from_f32(v).to_f32().to_bits(),
                    "{v:e}"
                );
            }
        }
    }

    #[test]
    fn every_binary16_has_its_value() {
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
        let mut decoded = vec![0.0; halves.len()];
        FloatFormat::F16.decode(&bytes, &mut decoded);
        for (half, found) in halves.into_iter().zip(decoded) {
            let expected = f16::from_bits(half).to_f32();
            let same = found.to_bits() == expected.to_bits();
            assert!(same || found.is_nan() && expected.is_nan(), "{half:#06x}");
        }
    }

    #[test]
    fn ties_of_bf16_go_to_even() {
        let mut values = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0 - 1.0 / 256.0];
        FloatFormat::Bf16.round(&mut values);
        assert_eq!(values, [1.0, 1.0 + 4.0 / 256.0, -1.0]);
    }

    #[test]
    fn vectors_are_checked_read_and_turned_over() {
        let floats = Floats::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], FloatFormat::F16).unwrap();
        let turned = floats.transposed(2, 3);
        let mut out = [0.0; 4];
        turned.read(1, &mut out);
        assert_eq!(out, [4.0, 2.0, 5.0, 3.0]);
        assert_eq!((turned.get(5), turned.len()), (6.0, 6));
        assert!(Floats::from_f32(&[1.0, 1e6], FloatFormat::F16).is_err());
        assert!(Floats::from_f32(&[f32::NAN], FloatFormat::F32).is_err());
        assert!(Floats::new(vec![0; 3].into(), FloatFormat::F16).is_err());
    }
}
