//! Floats of every format in 32-bit words, and rounding, by integer operations: no compiler of a
//! GPU rearranges them, and no GPU needs to know the format.

use cubecl::prelude::*;

use crate::floats::FloatFormat;

/// The smallest number of binary16, `2^-24`.
const LEAST: f32 = 1.0 / 16_777_216.0;

/// The value at `index` of a part that begins with word `start`.
#[cube]
pub(super) fn float(
    words: &[u32],
    start: usize,
    index: usize,
    #[comptime] format: FloatFormat,
) -> f32 {
    match format {
        FloatFormat::F32 => f32::reinterpret(words[start + index]),
        FloatFormat::F16 => f16_to_f32(half(words, start, index)),
        FloatFormat::Bf16 => f32::reinterpret(half(words, start, index) << 16),
    }
}

#[cube]
fn half(words: &[u32], start: usize, index: usize) -> u32 {
    (words[start + index / 2] >> (16 * (index % 2) as u32)) & 0xffff
}

/// The value of a binary16.
#[cube]
fn f16_to_f32(half: u32) -> f32 {
    let exponent = half & 0x7c00;
    // The exponents' biases differ by 112; all ones stay all ones.
    let moved = ((half & 0x7fff) << 13) + (112u32 << 23);
    let moved = select(exponent == 0x7c00, moved + (112u32 << 23), moved);
    let subnormal = u32::reinterpret(f32::cast_from(half & 0x3ff) * LEAST);
    let magnitude = select(exponent == 0, subnormal, moved);
    f32::reinterpret(magnitude | ((half & 0x8000) << 16))
}

/// The nearest value of a format, ties to even.
#[cube]
pub(super) fn round(value: f32, #[comptime] format: FloatFormat) -> f32 {
    match format {
        FloatFormat::F32 => value,
        FloatFormat::F16 => round_f16(value),
        FloatFormat::Bf16 => {
            let bits = u32::reinterpret(value);
            let up = ((bits >> 16) & 1) + 0x7fff;
            f32::reinterpret((bits + up) & 0xffff_0000)
        }
    }
}

#[cube]
fn round_f16(value: f32) -> f32 {
    let bits = u32::reinterpret(value);
    let magnitude = bits & 0x7fff_ffff;
    let normal = (magnitude + 0xfff + ((magnitude >> 13) & 1)) & 0xffff_e000;
    // From 2^16 on there is only infinity.
    let normal = select(normal >= 0x4780_0000, 0x7f80_0000u32.runtime(), normal);
    // Below 2^-14 values are whole numbers of 2^-24.
    let shift = clamp(126 - (magnitude >> 23), 1, 31);
    let mantissa = (magnitude & 0x007f_ffff) | 0x0080_0000;
    let up = (1u32 << (shift - 1)) - 1 + ((mantissa >> shift) & 1);
    let subnormal = u32::reinterpret(f32::cast_from((mantissa + up) >> shift) * LEAST);
    let magnitude = select(magnitude < 0x3880_0000, subnormal, normal);
    f32::reinterpret(magnitude | (bits & 0x8000_0000))
}
