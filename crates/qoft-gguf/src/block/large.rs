//! Blocks of 256 values, with scales of smaller groups.

use qoft_scheme::kernels::BlockFormat;

use super::small::IQ4_LEVELS;
use super::{f16_at, f16_is_finite};

/// Scale and minimum of group `s` of `Q4_K` and `Q5_K`, from their 12 bytes.
#[inline(always)]
pub fn scale_and_min(bytes: &[u8], s: usize) -> (u8, u8) {
    if s < 4 {
        (bytes[s] & 63, bytes[s + 4] & 63)
    } else {
        let (scale, min) = (bytes[s + 4] & 15, bytes[s + 4] >> 4);
        (scale | bytes[s - 4] >> 6 << 4, min | bytes[s] >> 6 << 4)
    }
}

/// Decodes `Q4_K` and `Q5_K`: groups of 32, of which two share the low and the high bits of as many
/// bytes of `codes`. `fifth` is the bit above these, of element `l` of group `s`.
#[inline(always)]
fn decode_groups(block: &[u8], codes: &[u8], out: &mut [f32], fifth: impl Fn(usize, usize) -> u8) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    for (s, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], s);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let codes = &codes[s / 2 * 32..][..32];
        for (l, (out, code)) in out.iter_mut().zip(codes).enumerate() {
            let code = code >> (s % 2 * 4) & 15 | fifth(s, l) << 4;
            *out = scale * f32::from(code) - min;
        }
    }
}

/// The 2 bits of element `32p + l` of half `h` for all `l`, as `Q2_K` and `Q3_K` place them.
#[inline(always)]
fn two_bits(codes: &[u8], h: usize, p: usize, l: usize) -> u8 {
    codes[32 * h + l] >> (2 * p) & 3
}

/// Groups of 16 with scales and minima of 4 bits.
pub struct Q2K;

impl BlockFormat for Q2K {
    const NAME: &'static str = "Q2_K";
    const VALUES: usize = 256;
    const BYTES: usize = 84;
    const BITS: u32 = 2;
    const GROUP: usize = 16;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (scales, codes) = (&block[..16], &block[16..80]);
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for (s, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = d * f32::from(scales[s] & 15);
            let min = dmin * f32::from(scales[s] >> 4);
            let (h, p, first) = (s / 8, s % 8 / 2, s % 2 * 16);
            for (l, out) in out.iter_mut().enumerate() {
                *out = scale * f32::from(two_bits(codes, h, p, first + l)) - min;
            }
        }
    }

    fn is_finite(block: &[u8]) -> bool {
        f16_is_finite(block, 80) && f16_is_finite(block, 82)
    }
}

/// Groups of 16 with scales of 6 bits.
pub struct Q3K;

/// Scale of group `s` of `Q3_K`, from its 12 bytes.
#[inline(always)]
fn q3_scale(bytes: &[u8], s: usize) -> f32 {
    let low = if s < 8 {
        bytes[s] & 15
    } else {
        bytes[s - 8] >> 4
    };
    let high = bytes[8 + s % 4] >> (2 * (s / 4)) & 3;
    f32::from(low | high << 4) - 32.0
}

impl BlockFormat for Q3K {
    const NAME: &'static str = "Q3_K";
    const VALUES: usize = 256;
    const BYTES: usize = 110;
    const BITS: u32 = 3;
    const GROUP: usize = 16;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (high, codes, scales) = (&block[..32], &block[32..96], &block[96..108]);
        let d = f16_at(block, 108);
        for (s, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = d * q3_scale(scales, s);
            let (h, p, first) = (s / 8, s % 8 / 2, s % 2 * 16);
            for (l, out) in out.iter_mut().enumerate() {
                let less = 4 - (high[first + l] >> (s / 2) & 1) * 4;
                let code = two_bits(codes, h, p, first + l);
                *out = scale * (f32::from(code) - f32::from(less));
            }
        }
    }

    fn is_finite(block: &[u8]) -> bool {
        f16_is_finite(block, 108)
    }
}

/// Groups of 32 with scales and minima of 6 bits.
pub struct Q4K;

impl BlockFormat for Q4K {
    const NAME: &'static str = "Q4_K";
    const VALUES: usize = 256;
    const BYTES: usize = 144;
    const BITS: u32 = 4;
    const GROUP: usize = 32;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        decode_groups(block, &block[16..144], out, |_, _| 0);
    }

    fn is_finite(block: &[u8]) -> bool {
        f16_is_finite(block, 0) && f16_is_finite(block, 2)
    }
}

/// As [`Q4K`], with a fifth bit of each code.
pub struct Q5K;

impl BlockFormat for Q5K {
    const NAME: &'static str = "Q5_K";
    const VALUES: usize = 256;
    const BYTES: usize = 176;
    const BITS: u32 = 5;
    const GROUP: usize = 32;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let fifth = |s, l: usize| block[16 + l] >> s & 1;
        decode_groups(block, &block[48..176], out, fifth);
    }

    fn is_finite(block: &[u8]) -> bool {
        f16_is_finite(block, 0) && f16_is_finite(block, 2)
    }
}

/// Groups of 16 with scales of signed bytes.
pub struct Q6K;

impl BlockFormat for Q6K {
    const NAME: &'static str = "Q6_K";
    const VALUES: usize = 256;
    const BYTES: usize = 210;
    const BITS: u32 = 6;
    const GROUP: usize = 16;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 208);
        for (h, out) in out.chunks_exact_mut(128).enumerate() {
            let low = &block[64 * h..][..64];
            let high = &block[128 + 32 * h..][..32];
            let scales = &block[192 + 8 * h..][..8];
            for (quarter, out) in out.chunks_exact_mut(32).enumerate() {
                let low = &low[quarter % 2 * 32..][..32];
                for (g, out) in out.chunks_exact_mut(16).enumerate() {
                    let scale = d * f32::from(scales[2 * quarter + g] as i8);
                    let (low, high) = (&low[16 * g..][..16], &high[16 * g..][..16]);
                    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
                        let code = low >> (quarter / 2 * 4) & 15;
                        let code = code | (high >> (2 * quarter) & 3) << 4;
                        *out = scale * (f32::from(code) - 32.0);
                    }
                }
            }
        }
    }

    fn is_finite(block: &[u8]) -> bool {
        f16_is_finite(block, 208)
    }
}

/// Groups of 32 with scales of 6 bits, and codes of levels.
pub struct Iq4Xs;

impl BlockFormat for Iq4Xs {
    const NAME: &'static str = "IQ4_XS";
    const VALUES: usize = 256;
    const BYTES: usize = 136;
    const BITS: u32 = 4;
    const GROUP: usize = 32;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        let high = u16::from_le_bytes([block[2], block[3]]);
        let groups = out.chunks_exact_mut(32).zip(block[8..].chunks_exact(16));
        for (s, (out, codes)) in groups.enumerate() {
            let low = block[4 + s / 2] >> (4 * (s % 2)) & 15;
            let scale = low | ((high >> (2 * s) & 3) << 4) as u8;
            let scale = d * (f32::from(scale) - 32.0);
            super::nibbles(codes, out, |_, code| {
                scale * IQ4_LEVELS[usize::from(code & 15)]
            });
        }
    }

    fn is_finite(block: &[u8]) -> bool {
        f16_is_finite(block, 0)
    }
}
