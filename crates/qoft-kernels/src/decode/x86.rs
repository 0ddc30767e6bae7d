//! Look-ups in tables of 256 numbers in vector registers.

use std::arch::x86_64::*;

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
