//! Inner loops of decoding, with the widest instructions that the machine has.

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

/// `out[i] = f32(codes[i] as i8) * scale`.
pub(crate) fn int8(codes: &[u8], scale: f32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            return unsafe { x86::int8_avx512(codes, scale, out) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the feature was just detected.
            return unsafe { x86::int8_avx2(codes, scale, out) };
        }
    }
    int8_portable(codes, scale, out);
}

#[inline(always)]
fn int8_portable(codes: &[u8], scale: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = f32::from(code as i8) * scale;
    }
}

/// `out[i] = table[code(start + i)] * scale`, codes of 4 bits, low half of a byte first.
pub(crate) fn table16(
    codes: &[u8],
    start: usize,
    table: &[f32; 16],
    scale: f32,
    mut out: &mut [f32],
) {
    let mut codes = &codes[start / 2..];
    if start % 2 == 1 && !out.is_empty() {
        // An odd start leaves half a byte; from there on bytes are whole.
        out[0] = table[usize::from(codes[0] >> 4)] * scale;
        codes = &codes[1..];
        out = &mut out[1..];
    }
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            return unsafe { x86::table16_avx512(codes, table, scale, out) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the feature was just detected.
            return unsafe { x86::table16_avx2(codes, table, scale, out) };
        }
    }
    table16_portable(codes, table, scale, out);
}

fn table16_portable(codes: &[u8], table: &[f32; 16], scale: f32, out: &mut [f32]) {
    for (pair, &byte) in out.chunks_mut(2).zip(codes) {
        pair[0] = table[usize::from(byte & 15)] * scale;
        if let Some(second) = pair.get_mut(1) {
            *second = table[usize::from(byte >> 4)] * scale;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// The plain loop; with the feature on, the compiler widens it by itself.
    #[target_feature(enable = "avx512f")]
    pub fn int8_avx512(codes: &[u8], scale: f32, out: &mut [f32]) {
        super::int8_portable(codes, scale, out);
    }

    /// As [`int8_avx512`].
    #[target_feature(enable = "avx2")]
    pub fn int8_avx2(codes: &[u8], scale: f32, out: &mut [f32]) {
        super::int8_portable(codes, scale, out);
    }

    /// Spreads 8 bytes over 16 lanes, each holding one code.
    #[target_feature(enable = "avx512f")]
    fn codes_avx512(bytes: [u8; 8]) -> __m512i {
        let low = _mm_cvtsi64_si128(i64::from_le_bytes(bytes));
        // Each byte twice, then the low half in even lanes and the high half in odd lanes.
        let twice = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(low, low));
        let shifts = _mm512_set1_epi64(4 << 32);
        _mm512_and_si512(_mm512_srlv_epi32(twice, shifts), _mm512_set1_epi32(15))
    }

    #[target_feature(enable = "avx512f")]
    pub fn table16_avx512(codes: &[u8], table: &[f32; 16], scale: f32, out: &mut [f32]) {
        // SAFETY: the table has 16 elements.
        let table_v = unsafe { _mm512_loadu_ps(table.as_ptr()) };
        let scale_v = _mm512_set1_ps(scale);
        let (wide, tail) = out.as_chunks_mut::<16>();
        let (bytes, _) = codes.as_chunks::<8>();
        for (out, &bytes) in wide.iter_mut().zip(bytes) {
            let values = _mm512_permutexvar_ps(codes_avx512(bytes), table_v);
            // SAFETY: `out` has 16 elements.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(values, scale_v)) };
        }
        super::table16_portable(&codes[wide.len() * 8..], table, scale, tail);
    }

    #[target_feature(enable = "avx2")]
    pub fn table16_avx2(codes: &[u8], table: &[f32; 16], scale: f32, out: &mut [f32]) {
        // SAFETY: both halves of the table have 8 elements.
        let (low, high) = unsafe {
            (
                _mm256_loadu_ps(table.as_ptr()),
                _mm256_loadu_ps(table.as_ptr().add(8)),
            )
        };
        let scale_v = _mm256_set1_ps(scale);
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
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(values, scale_v)) };
        }
        super::table16_portable(&codes[wide.len() * 4..], table, scale, tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes() -> Vec<u8> {
        (0..64u32).map(|i| (i * 151 + 7) as u8).collect()
    }

    #[test]
    fn every_instruction_set_decodes_tables_alike() {
        let table: [f32; 16] = std::array::from_fn(|i| (i as f32 - 5.0) * 0.3);
        for length in [0, 1, 7, 8, 15, 16, 31, 33, 100, 127] {
            let mut expected = vec![0.0; length];
            table16_portable(&codes(), &table, 0.7, &mut expected);
            let mut out = vec![f32::NAN; length];
            table16(&codes(), 0, &table, 0.7, &mut out);
            assert_eq!(out, expected);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                out.fill(f32::NAN);
                // SAFETY: the feature was just detected.
                unsafe { x86::table16_avx2(&codes(), &table, 0.7, &mut out) };
                assert_eq!(out, expected);
            }
        }
    }

    #[test]
    fn an_odd_start_takes_the_high_half_first() {
        let table: [f32; 16] = std::array::from_fn(|i| i as f32);
        let mut all = vec![0.0; 64];
        table16(&codes(), 0, &table, 1.0, &mut all);
        let mut out = vec![0.0; 40];
        table16(&codes(), 3, &table, 1.0, &mut out);
        assert_eq!(out, all[3..43]);
    }

    #[test]
    fn int8_is_signed() {
        let mut out = [0.0; 3];
        int8(&[0x80, 0xff, 0x7f], 2.0, &mut out);
        assert_eq!(out, [-256.0, -2.0, 254.0]);
    }
}
