//! Products with 8-bit integers.

use pulp::{Simd, WithSimd};

use crate::simd::{arch, prefetch};

/// Sums that run beside each other.
const LANES: usize = 32;

/// Bytes that are asked for ahead of those that are read.
const AHEAD: usize = 1024;

/// `Σ (codes[i] − zero) · x[i]`, with codes taken as signed or unsigned integers.
pub(crate) fn dot_bytes(codes: &[u8], signed: bool, zero: f32, x: &[f32]) -> f32 {
    // A signed byte is an unsigned one whose highest bit is turned over, less 128.
    let (flip, zero) = if signed {
        (128, zero + 128.0)
    } else {
        (0, zero)
    };
    arch().dispatch(Dot {
        codes,
        flip,
        zero,
        x,
    })
}

/// A product; a closure would not always be inlined where vectors are wide.
struct Dot<'a> {
    codes: &'a [u8],
    flip: u8,
    zero: f32,
    x: &'a [f32],
}

impl WithSimd for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let (codes, codes_rest) = self.codes.as_chunks::<LANES>();
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for (codes, x) in codes.iter().zip(x) {
            prefetch(codes, AHEAD);
            for i in 0..LANES {
                sums[i] += (f32::from(codes[i] ^ self.flip) - self.zero) * x[i];
            }
        }
        let mut sum = sums.iter().sum::<f32>();
        for (code, x) in codes_rest.iter().zip(x_rest) {
            sum += (f32::from(code ^ self.flip) - self.zero) * x;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_integers() {
        let codes: Vec<u8> = (0..300u32).map(|i| (i * 151 + 7) as u8).collect();
        let x: Vec<f32> = (0..300).map(|i| (i * 29 % 31) as f32 - 15.0).collect();
        for length in [0, 1, 63, 64, 200, 300] {
            let pairs = || codes[..length].iter().zip(&x);
            let unsigned = pairs().map(|(&code, x)| (f32::from(code) - 3.0) * x);
            let signed = pairs().map(|(&code, x)| (f32::from(code as i8) - 3.0) * x);
            // All sums are integers below 2²⁴.
            let dot = |signed| dot_bytes(&codes[..length], signed, 3.0, &x[..length]);
            assert_eq!(dot(false), unsigned.sum::<f32>());
            assert_eq!(dot(true), signed.sum::<f32>());
        }
    }
}
