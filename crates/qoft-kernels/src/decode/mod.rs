//! Inner loops of decoding, with the widest instructions that the machine has.

use crate::simd::arch;
mod small;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use small::{Runs, SmallCodes};

/// The instruction set that decoding uses on this machine: `avx512`, `avx2` or `portable`.
pub fn simd_level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return "avx2";
        }
    }
    "portable"
}

/// `out[i] = codes[i]` as a signed integer.
pub(crate) fn int8(codes: &[u8], out: &mut [f32]) {
    arch().dispatch(|| {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = f32::from(code as i8);
        }
    });
}

/// `out[i] = codes[i]`.
pub(crate) fn uint8(codes: &[u8], out: &mut [f32]) {
    arch().dispatch(|| {
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
    arch().dispatch(|| {
        for out in out {
            *out *= scale;
        }
    });
}

/// `out[i] -= zero`.
pub(crate) fn subtract(out: &mut [f32], zero: f32) {
    arch().dispatch(|| {
        for out in out {
            *out -= zero;
        }
    });
}

/// `out[i] *= scales[i]`.
pub(crate) fn scale_each(out: &mut [f32], scales: &[f32]) {
    arch().dispatch(|| {
        for (out, scale) in out.iter_mut().zip(scales) {
            *out *= scale;
        }
    });
}

/// `out[i] -= zeros[i]`.
pub(crate) fn subtract_each(out: &mut [f32], zeros: &[f32]) {
    arch().dispatch(|| {
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

/// `out[i] = table[code(start + i)]` for codes of 1 to 4 bits.
pub(crate) fn table16(codes: &[u8], bits: u32, start: usize, table: &[f32; 16], out: &mut [f32]) {
    let (codes, out) = aligned(codes, bits, start, out, |code, _| table[code]);
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            return unsafe { x86::table16_avx512(codes, bits, table, out) };
        }
        if bits == 4 && std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the feature was just detected.
            return unsafe { x86::table16_avx2(codes, table, out) };
        }
    }
    each_code(codes, bits, out, |code, _| table[code]);
}

/// Decodes single codes up to one that starts a group of eight, which starts a byte too, and
/// returns what is left.
fn aligned<'a, 'b>(
    codes: &'a [u8],
    bits: u32,
    start: usize,
    out: &'b mut [f32],
    look_up: impl Fn(usize, usize) -> f32,
) -> (&'a [u8], &'b mut [f32]) {
    let head = (start.next_multiple_of(8) - start).min(out.len());
    let (first, rest) = out.split_at_mut(head);
    for (i, out) in first.iter_mut().enumerate() {
        *out = look_up(usize::from(code(codes, bits, start + i)), i);
    }
    let skip = (start + head) * bits as usize / 8;
    (codes.get(skip..).unwrap_or_default(), rest)
}

/// Eight codes at a time: they fill `bits` whole bytes.
#[inline(always)]
fn each_code(codes: &[u8], bits: u32, out: &mut [f32], look_up: impl Fn(usize, usize) -> f32) {
    let mask = (1u64 << bits) - 1;
    for (chunk, (out, codes)) in out
        .chunks_mut(8)
        .zip(codes.chunks(bits as usize))
        .enumerate()
    {
        let mut word = [0; 8];
        word[..codes.len()].copy_from_slice(codes);
        let word = u64::from_le_bytes(word);
        for (i, out) in out.iter_mut().enumerate() {
            let code = (word >> (bits as usize * i)) & mask;
            *out = look_up(code as usize & 15, chunk * 8 + i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes() -> Vec<u8> {
        (0..64u32).map(|i| (i * 151 + 7) as u8).collect()
    }

    fn table() -> [f32; 16] {
        std::array::from_fn(|i| (i as f32 - 5.0) * 0.3)
    }

    #[test]
    fn tables_decode_every_code_from_any_start() {
        let (codes, table) = (codes(), table());
        for bits in 1..=4 {
            for start in [0, 1, 3, 8, 13] {
                for length in [0, 1, 7, 8, 15, 16, 33, 100] {
                    let mut out = vec![f32::NAN; length];
                    table16(&codes, bits, start, &table, &mut out);
                    let expected: Vec<f32> = (start..start + length)
                        .map(|i| table[usize::from(code(&codes, bits, i))])
                        .collect();
                    assert_eq!(out, expected, "{bits} bits, {length} from {start}");
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_decodes_alike() {
        let (codes, table) = (codes(), table());
        for length in [0, 1, 7, 8, 15, 16, 31, 33, 100, 127] {
            let mut expected = vec![0.0; length];
            each_code(&codes, 4, &mut expected, |code, _| table[code]);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                let mut out = vec![f32::NAN; length];
                // SAFETY: the feature was just detected.
                unsafe { x86::table16_avx2(&codes, &table, &mut out) };
                assert_eq!(out, expected);
            }
        }
    }

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
