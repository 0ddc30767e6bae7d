//! Table look-ups in vector registers.

use std::arch::x86_64::*;

use super::each_code;

/// Spreads 8 bytes over 16 lanes, each holding one code of 4 bits.
#[target_feature(enable = "avx512f")]
fn four_bits(bytes: [u8; 8]) -> __m512i {
    let low = _mm_cvtsi64_si128(i64::from_le_bytes(bytes));
    // Each byte twice, then the low half in even lanes and the high half in odd lanes.
    let twice = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(low, low));
    let shifts = _mm512_set1_epi64(4 << 32);
    _mm512_and_si512(_mm512_srlv_epi32(twice, shifts), _mm512_set1_epi32(15))
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
    let width = bits as usize;
    let (wide, tail) = out.as_chunks_mut::<16>();
    let count = wide.len().min(codes.len() / (2 * width));
    let mut store = |i: usize, index: __m512i| {
        // SAFETY: `wide[i]` has 16 elements.
        unsafe { _mm512_storeu_ps(wide[i].as_mut_ptr(), _mm512_permutexvar_ps(index, values)) };
    };
    if bits == 4 {
        for (i, &bytes) in codes.as_chunks::<8>().0.iter().take(count).enumerate() {
            store(i, four_bits(bytes));
        }
    } else {
        let b = i64::from(bits);
        let shifts = _mm512_set_epi64(7 * b, 6 * b, 5 * b, 4 * b, 3 * b, 2 * b, b, 0);
        let mask = _mm512_set1_epi32((1 << bits) - 1);
        for (i, bytes) in codes.chunks_exact(2 * width).take(count).enumerate() {
            let word = |bytes: &[u8]| {
                let byte = |at: usize| u64::from(bytes.get(at).copied().unwrap_or(0));
                byte(0) | byte(1) << 8 | byte(2) << 16
            };
            let words = [word(&bytes[..width]), word(&bytes[width..])];
            store(i, few_bits(words, shifts, mask));
        }
    }
    each_code(&codes[count * 2 * width..], bits, tail, |code, _| {
        table[code]
    });
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
