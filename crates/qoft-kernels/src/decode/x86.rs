//! Table look-ups in vector registers.

use std::arch::x86_64::*;

use super::{Runs, SmallCodes, each_code};
use crate::floats::FloatFormat;

/// Spreads 8 bytes over 16 lanes, each with one code in its lowest 4 bits.
#[target_feature(enable = "avx512f")]
fn four_bits(bytes: [u8; 8]) -> __m512i {
    let low = _mm_cvtsi64_si128(i64::from_le_bytes(bytes));
    // Each byte twice, then the low half in even lanes and the high half in odd lanes.
    let twice = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(low, low));
    // Look-ups in 16 entries ignore the bits above.
    _mm512_srlv_epi32(twice, _mm512_set1_epi64(4 << 32))
}

/// Spreads two words of eight codes over 16 lanes.
#[target_feature(enable = "avx512f")]
fn few_bits(words: [u64; 2], shifts: __m512i, mask: __m512i) -> __m512i {
    let lanes = words.map(|word| {
        let spread = _mm512_srlv_epi64(_mm512_set1_epi64(word as i64), shifts);
        _mm512_cvtepi64_epi32(spread)
    });
    let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lanes[0]), lanes[1]);
    _mm512_and_si512(both, mask)
}

/// `out[i] = table[code(i)]` for codes of 1 to 4 bits.
#[target_feature(enable = "avx512f")]
pub fn table16_avx512(codes: &[u8], bits: u32, table: &[f32; 16], out: &mut [f32]) {
    // SAFETY: the table has 16 elements.
    let values = unsafe { _mm512_loadu_ps(table.as_ptr()) };
    look_up(codes, bits, values, out);
}

/// As [`table16_avx512`], with the table in a register.
#[inline]
#[target_feature(enable = "avx512f")]
fn look_up(codes: &[u8], bits: u32, table: __m512, out: &mut [f32]) {
    let width = bits as usize;
    let (wide, tail) = out.as_chunks_mut::<16>();
    let count = wide.len().min(codes.len() / (2 * width));
    if bits == 4 {
        for (out, &bytes) in wide.iter_mut().zip(codes.as_chunks::<8>().0) {
            let values = _mm512_permutexvar_ps(four_bits(bytes), table);
            // SAFETY: `out` has 16 elements.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) };
        }
    } else {
        let b = i64::from(bits);
        let shifts = _mm512_set_epi64(7 * b, 6 * b, 5 * b, 4 * b, 3 * b, 2 * b, b, 0);
        let mask = _mm512_set1_epi32((1 << bits) - 1);
        for (out, bytes) in wide.iter_mut().zip(codes.chunks_exact(2 * width)) {
            let words = [word(&bytes[..width]), word(&bytes[width..])];
            let values = _mm512_permutexvar_ps(few_bits(words, shifts, mask), table);
            // SAFETY: `out` has 16 elements.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) };
        }
    }
    if count < wide.len() || !tail.is_empty() {
        let mut values = [0.0; 16];
        // SAFETY: the array has 16 elements.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), table) };
        let rest = &mut out[count * 16..];
        each_code(&codes[count * 2 * width..], bits, rest, |code, _| {
            values[code]
        });
    }
}

/// Up to three bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    let byte = |at: usize| u64::from(bytes.get(at).copied().unwrap_or(0));
    byte(0) | byte(1) << 8 | byte(2) << 16
}

/// The weights of all codes in a group.
#[inline]
#[target_feature(enable = "avx512f")]
fn table(codes: &SmallCodes, numbers: __m512, scale: f32, zero: f32) -> __m512 {
    let mut table = _mm512_sub_ps(numbers, _mm512_set1_ps(zero));
    if codes.round_zero {
        table = round(codes.rounding, table);
    }
    let scaled = _mm512_mul_ps(table, _mm512_set1_ps(scale));
    round(
        codes.rounding,
        _mm512_mul_ps(scaled, _mm512_set1_ps(codes.factor)),
    )
}

/// See [`SmallCodes::decode`].
#[target_feature(enable = "avx512f")]
pub fn runs_avx512(codes: &SmallCodes, mut start: usize, runs: Runs, out: &mut [f32]) {
    // SAFETY: there are 16 numbers.
    let numbers = unsafe { _mm512_loadu_ps(codes.numbers.as_ptr()) };
    for (run, scale, zero) in runs.of_mut(out) {
        let table = table(codes, numbers, scale, zero);
        if start.is_multiple_of(8) {
            let at = start / 8 * codes.bits as usize;
            look_up(&codes.bytes[at..], codes.bits, table, run);
        } else {
            let mut values = [0.0; 16];
            // SAFETY: the array has 16 elements.
            unsafe { _mm512_storeu_ps(values.as_mut_ptr(), table) };
            super::table16(codes.bytes, codes.bits, start, &values, run);
        }
        start += run.len();
    }
}

/// See [`SmallCodes::dot`]; codes have 4 bits, and all runs but the last start and end with a
/// multiple of 8 codes.
#[target_feature(enable = "avx512f")]
pub fn dot_avx512(codes: &SmallCodes, start: usize, runs: Runs, mut x: &[f32]) -> f32 {
    // SAFETY: there are 16 numbers.
    let numbers = unsafe { _mm512_loadu_ps(codes.numbers.as_ptr()) };
    let mut bytes = &codes.bytes[start / 2..];
    let mut sums = [_mm512_setzero_ps(); 4];
    let mut length = runs.first;
    for (&scale, &zero) in runs.scales.iter().zip(runs.zeros) {
        let table = table(codes, numbers, scale, zero);
        let (run, rest) = x.split_at(length.min(x.len()));
        let (wide, tail) = run.as_chunks::<16>();
        let (words, _) = bytes.as_chunks::<8>();
        for (i, (x, &word)) in wide.iter().zip(words).enumerate() {
            let weights = _mm512_permutexvar_ps(four_bits(word), table);
            // SAFETY: `x` has 16 elements.
            let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
            sums[i % 4] = _mm512_fmadd_ps(weights, x, sums[i % 4]);
        }
        if !tail.is_empty() {
            let mut word = [0; 8];
            let left = &bytes[wide.len() * 8..][..tail.len().div_ceil(2)];
            word[..left.len()].copy_from_slice(left);
            let weights = _mm512_permutexvar_ps(four_bits(word), table);
            let mask = (1 << tail.len()) - 1;
            // SAFETY: the mask has as many bits as `tail` has elements.
            let x = unsafe { _mm512_maskz_loadu_ps(mask, tail.as_ptr()) };
            sums[0] = _mm512_mask3_fmadd_ps(weights, x, sums[0], mask);
        }
        bytes = bytes.get(run.len() / 2..).unwrap_or_default();
        (x, length) = (rest, runs.size);
    }
    let [a, b, c, d] = sums;
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)))
}

/// Rounds to nearest, ties to even.
#[inline]
#[target_feature(enable = "avx512f")]
fn round(format: FloatFormat, values: __m512) -> __m512 {
    match format {
        FloatFormat::F32 => values,
        FloatFormat::F16 => _mm512_cvtph_ps(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values)),
        FloatFormat::Bf16 => {
            let bits = _mm512_castps_si512(values);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let kept = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            _mm512_castsi512_ps(_mm512_and_si512(_mm512_add_epi32(bits, up), kept))
        }
    }
}

/// `out[i] = table[code(i)]` for codes of 4 bits.
#[target_feature(enable = "avx2")]
pub fn table16_avx2(codes: &[u8], table: &[f32; 16], out: &mut [f32]) {
    // SAFETY: both halves of the table have 8 elements.
    let (low, high) = unsafe {
        (
            _mm256_loadu_ps(table.as_ptr()),
            _mm256_loadu_ps(table.as_ptr().add(8)),
        )
    };
    let shifts = _mm256_set1_epi64x(4 << 32);
    let (wide, tail) = out.as_chunks_mut::<8>();
    let (bytes, _) = codes.as_chunks::<4>();
    for (out, &bytes) in wide.iter_mut().zip(bytes) {
        let four = _mm_cvtsi32_si128(i32::from_le_bytes(bytes));
        let twice = _mm256_cvtepu8_epi32(_mm_unpacklo_epi8(four, four));
        // `permutevar8x32` looks at three bits; bit 3 then selects the half by its sign.
        let index = _mm256_srlv_epi32(twice, shifts);
        let half = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
        let values = _mm256_blendv_ps(
            _mm256_permutevar8x32_ps(low, index),
            _mm256_permutevar8x32_ps(high, index),
            half,
        );
        // SAFETY: `out` has 8 elements.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) };
    }
    each_code(&codes[wide.len() * 4..], 4, tail, |code, _| table[code]);
}

/// `out[i] = table[codes[i]]` for the first elements; returns how many. Those are none if a number
/// of the table needs more than the upper half of its bits: the look-up is one of 16-bit words.
#[target_feature(enable = "avx512f,avx512bw")]
pub fn table256_avx512(codes: &[u8], table: &[f32; 256], out: &mut [f32]) -> usize {
    let mut all_bits = _mm512_setzero_si512();
    let words: [__m512i; 8] = std::array::from_fn(|i| {
        let halves = [0, 16].map(|at| {
            // SAFETY: the table has 16 elements from `32 * i + at` on.
            let values = unsafe { _mm512_loadu_si512(table[32 * i + at..].as_ptr().cast()) };
            all_bits = _mm512_or_si512(all_bits, values);
            _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(values))
        });
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(halves[0]), halves[1])
    });
    if _mm512_test_epi32_mask(all_bits, _mm512_set1_epi32(0xffff)) != 0 {
        return 0;
    }
    let (wide, _) = out.as_chunks_mut::<32>();
    let (codes, _) = codes.as_chunks::<32>();
    let count = wide.len().min(codes.len());
    for (out, codes) in wide.iter_mut().zip(codes) {
        // SAFETY: `codes` has 32 elements.
        let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
        let index = _mm512_cvtepu8_epi16(codes);
        // The permutation looks at the lower six bits; bits 6 and 7 choose one of its four results.
        let bit6 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
        let bit7 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));
        let quarter = |i: usize| _mm512_permutex2var_epi16(words[2 * i], index, words[2 * i + 1]);
        let found = _mm512_mask_blend_epi16(
            bit7,
            _mm512_mask_blend_epi16(bit6, quarter(0), quarter(1)),
            _mm512_mask_blend_epi16(bit6, quarter(2), quarter(3)),
        );
        let halves = [
            _mm512_castsi512_si256(found),
            _mm512_extracti64x4_epi64::<1>(found),
        ];
        for (out, half) in out.as_chunks_mut::<16>().0.iter_mut().zip(halves) {
            let values = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half));
            // SAFETY: `out` has 16 elements.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), values) };
        }
    }
    32 * count
}
