//! Transposes in registers.

use std::arch::x86_64::*;

/// Turns 16 columns of 16 elements into rows.
///
/// # Safety
/// The rows can be written.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose(columns: [&[f32; 16]; 16], rows: [*mut [f32; 16]; 16]) {
    let mut v = [_mm512_setzero_ps(); 16];
    for (v, column) in v.iter_mut().zip(columns) {
        // SAFETY: a column has 16 elements.
        *v = unsafe { _mm512_loadu_ps(column.as_ptr()) };
    }
    // Neighbours are interleaved, then pairs of them, within each quarter of the registers.
    for pair in v.as_chunks_mut::<2>().0 {
        let [a, b] = *pair;
        *pair = [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)];
    }
    for four in v.as_chunks_mut::<4>().0 {
        let [a, b, c, d] = *four;
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        let (c, d) = (_mm512_castps_pd(c), _mm512_castps_pd(d));
        *four = [
            _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)),
            _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)),
        ];
    }
    // Now register 4i + j has rows j, j + 4, j + 8 and j + 12 of columns 4i to 4i + 3: the quarters
    // are turned over.
    let mut turned = [_mm512_setzero_ps(); 16];
    for j in 0..4 {
        let [a, b, c, d] = [v[j], v[4 + j], v[8 + j], v[12 + j]];
        let (ab_low, ab_high) = (
            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
        );
        let (cd_low, cd_high) = (
            _mm512_shuffle_f32x4::<0b01_00_01_00>(c, d),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(c, d),
        );
        turned[j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_low, cd_low);
        turned[4 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_low, cd_low);
        turned[8 + j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_high, cd_high);
        turned[12 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_high, cd_high);
    }
    for (row, turned) in rows.into_iter().zip(turned) {
        // SAFETY: a row has 16 elements, which the caller vouches for.
        unsafe { _mm512_storeu_ps(row.cast(), turned) };
    }
}
