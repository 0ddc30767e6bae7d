//! Inner loops of decoding, with the widest instructions that the machine has.

mod bytes;
mod look_up;
mod nibbles;
mod small;
mod unpack;
#[cfg(target_arch = "x86_64")]
mod x86;

use pulp::Arch;

use crate::floats::FloatFormat;
use crate::nibble_order::NibbleOrder;
use crate::simd::arch;
use crate::wide;
pub(crate) use bytes::dot_bytes;
pub(crate) use nibbles::{BLOCK, NibbleRows, Spread, spread};
pub(crate) use small::{Runs, SmallCodes, ZeroStep};
pub(crate) use unpack::unpack;

/// The instruction set that decoding uses on this machine: `avx512`, `avx2`, `neon` or `portable`.
pub fn simd_level() -> &'static str {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "avx512",
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "avx2",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => "neon",
        _ => "portable",
    }
}

/// `out[i] = codes[i]` as a signed integer.
pub(crate) fn int8(codes: &[u8], out: &mut [f32]) {
    wide!({
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = f32::from(code as i8);
        }
    });
}

/// `out[i] = codes[i]`.
pub(crate) fn uint8(codes: &[u8], out: &mut [f32]) {
    wide!({
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = f32::from(code);
        }
    });
}

/// `out[i] = table[codes[i]]`.
pub(crate) fn table256(codes: &[u8], table: &[f32; 256], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512bw") {
        // SAFETY: the feature was just detected.
        let done = unsafe { x86::table256_avx512(codes, table, out) };
        return each_byte(&codes[done..], table, &mut out[done..]);
    }
    each_byte(codes, table, out);
}

/// Eight codes at a time: they are read as one word.
fn each_byte(codes: &[u8], table: &[f32; 256], out: &mut [f32]) {
    let (wide, tail) = out.as_chunks_mut::<8>();
    let (words, rest) = codes[..wide.len() * 8 + tail.len()].as_chunks::<8>();
    for (out, &word) in wide.iter_mut().zip(words) {
        let word = u64::from_le_bytes(word);
        for (i, out) in out.iter_mut().enumerate() {
            *out = table[(word >> (8 * i)) as usize & 255];
        }
    }
    for (out, &code) in tail.iter_mut().zip(rest) {
        *out = table[usize::from(code)];
    }
}

/// `out[i] *= scale`.
pub(crate) fn scale(out: &mut [f32], scale: f32) {
    wide!({
        for out in out {
            *out *= scale;
        }
    });
}

/// `out[i] -= zero`.
pub(crate) fn subtract(out: &mut [f32], zero: f32) {
    wide!({
        for out in out {
            *out -= zero;
        }
    });
}

/// `out[i] += offset`.
pub(crate) fn add(out: &mut [f32], offset: f32) {
    wide!({
        for out in out {
            *out += offset;
        }
    });
}

/// `out[i] += offsets[i]`.
pub(crate) fn add_each(out: &mut [f32], offsets: &[f32]) {
    wide!({
        for (out, offset) in out.iter_mut().zip(offsets) {
            *out += offset;
        }
    });
}

/// `out[i] *= scales[i]`.
pub(crate) fn scale_each(out: &mut [f32], scales: &[f32]) {
    wide!({
        for (out, scale) in out.iter_mut().zip(scales) {
            *out *= scale;
        }
    });
}

/// `out[i] -= zeros[i]`.
pub(crate) fn subtract_each(out: &mut [f32], zeros: &[f32]) {
    wide!({
        for (out, zero) in out.iter_mut().zip(zeros) {
            *out -= zero;
        }
    });
}

/// The code at `index` of a stream, least significant bits first.
#[inline(always)]
pub(crate) fn code(codes: &[u8], bits: u32, index: usize) -> u8 {
    let at = index * bits as usize;
    let low = u16::from(codes[at / 8]);
    let high = u16::from(codes.get(at / 8 + 1).copied().unwrap_or(0));
    let word = (high << 8 | low) >> (at % 8);
    (word & ((1 << bits) - 1)) as u8
}

/// `out[i] = table[code(start + i)]` for codes of 1 to 4 bits; the table is repeated where they have
/// fewer than four.
pub(crate) fn table16(
    codes: &[u8],
    (bits, order): (u32, NibbleOrder),
    start: usize,
    table: &[f32; 16],
    out: &mut [f32],
) {
    let codes = SmallCodes {
        bytes: codes,
        bits,
        order,
        numbers: table,
        zero_step: ZeroStep::Subtract,
        factor: 1.0,
        rounding: FloatFormat::F32,
    };
    let runs = Runs {
        first: out.len(),
        size: 1,
        scales: &[1.0],
        zeros: &[0.0],
    };
    codes.decode(start, runs, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_256_decode_every_code() {
        let codes: Vec<u8> = (0..300u32).map(|i| (i * 151 + 7) as u8).collect();
        let short: [f32; 256] = std::array::from_fn(|i| (i as f32 - 100.0) * 0.25);
        // The second table needs all bits of an f32.
        for table in [short, short.map(|v| v * 1.1)] {
            for length in [0, 1, 7, 8, 31, 32, 33, 64, 100, 300] {
                let mut out = vec![f32::NAN; length];
                table256(&codes, &table, &mut out);
                let expected: Vec<f32> = codes[..length]
                    .iter()
                    .map(|&code| table[usize::from(code)])
                    .collect();
                assert_eq!(out, expected, "{length} codes");
            }
        }
    }

    #[test]
    fn bytes_are_signed_or_not() {
        let mut out = [0.0; 3];
        int8(&[0x80, 0xff, 0x7f], &mut out);
        assert_eq!(out, [-128.0, -1.0, 127.0]);
        uint8(&[0x80, 0xff, 0x7f], &mut out);
        assert_eq!(out, [128.0, 255.0, 127.0]);
    }
}
