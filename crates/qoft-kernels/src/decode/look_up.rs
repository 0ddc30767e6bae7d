//! Look-ups in tables of 16 numbers that stay in registers, for every instruction set.

use pulp::{Arch, Scalar, Simd, WithSimd, cast};

use crate::floats::FloatFormat;
use crate::simd::arch;

/// Codes of a step: as many as a table has entries.
pub(super) const STEP: usize = 16;

/// Vectors with look-ups in tables of 16 numbers, which take `V` of them.
pub(super) trait LookUp<const V: usize>: Simd {
    /// The entry of each code, of which the lowest four bits count.
    fn look_up(self, table: [Self::f32s; V], codes: Self::u32s) -> Self::f32s;

    /// Vector `v` of a step, of which `words` hold eight codes each: the one for each lane.
    #[inline(always)]
    fn words(self, words: u64, v: usize) -> Self::u32s {
        self.splat_u32s((words >> (v * Self::F32_LANES / 8 * 32)) as u32)
    }

    /// Vector `v` of a step, of which each word is in two lanes, eight apart.
    #[inline(always)]
    fn eight(self, words: &[u32; 8], v: usize) -> Self::u32s {
        let (words, _) = Self::as_simd_u32s(words);
        words[v % words.len()]
    }

    /// The nearest numbers of binary16, ties to even; as [`FloatFormat::round`].
    #[inline(always)]
    fn round_to_f16(self, values: Self::f32s) -> Self::f32s {
        let word = |word| self.splat_u32s(word);
        let number = |number| self.splat_f32s(number);
        let bits = self.transmute_u32s_f32s(values);
        let size = self.and_u32s(bits, word(0x7fff_ffff));
        let up = self.add_u32s(last_bit(self, size, 13), word(0xfff));
        let normal = self.and_u32s(self.add_u32s(size, up), word(0xffff_e000));
        let normal = self.transmute_f32s_u32s(normal);
        let size = self.transmute_f32s_u32s(size);
        // Where binary16 is subnormal its numbers are multiples of 2⁻²⁴, the last place of 0.75.
        let small = self.sub_f32s(self.add_f32s(size, number(0.75)), number(0.75));
        let is_small = self.less_than_f32s(size, number(6.103_515_6e-5));
        let rounded = self.select_f32s(is_small, small, normal);
        let too_large = self.greater_than_f32s(rounded, number(65504.0));
        let rounded = self.select_f32s(too_large, number(f32::INFINITY), rounded);
        let sign = self.and_u32s(bits, word(0x8000_0000));
        self.transmute_f32s_u32s(self.or_u32s(self.transmute_u32s_f32s(rounded), sign))
    }
}

/// Bit `at` of each word.
#[inline(always)]
fn last_bit<S: Simd>(simd: S, words: S::u32s, at: u32) -> S::u32s {
    let shifted = simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(at));
    simd.and_u32s(shifted, simd.splat_u32s(1))
}

/// Rounds numbers that are not NaN; as [`FloatFormat::round`].
#[inline(always)]
pub(super) fn round<S: LookUp<V>, const V: usize>(
    simd: S,
    format: FloatFormat,
    values: S::f32s,
) -> S::f32s {
    match format {
        FloatFormat::F32 => values,
        FloatFormat::F16 => simd.round_to_f16(values),
        FloatFormat::Bf16 => {
            let bits = simd.transmute_u32s_f32s(values);
            let up = simd.add_u32s(last_bit(simd, bits, 16), simd.splat_u32s(0x7fff));
            let kept = simd.splat_u32s(0xffff_0000);
            simd.transmute_f32s_u32s(simd.and_u32s(simd.add_u32s(bits, up), kept))
        }
    }
}

impl LookUp<16> for Scalar {
    #[inline(always)]
    fn look_up(self, table: [f32; 16], code: u32) -> f32 {
        table[code as usize & 15]
    }
}

#[cfg(target_arch = "x86_64")]
impl LookUp<2> for pulp::x86::V3 {
    #[inline(always)]
    fn look_up(self, [low, high]: [pulp::f32x8; 2], codes: pulp::u32x8) -> pulp::f32x8 {
        // The permutation looks at three bits; bit 3 then selects the half by its sign.
        let from = |half| self.avx2._mm256_permutevar8x32_ps(cast(half), cast(codes));
        let bit = self.wrapping_dyn_shl_u32s(codes, self.splat_u32s(28));
        cast(self.avx._mm256_blendv_ps(from(low), from(high), cast(bit)))
    }
}

#[cfg(target_arch = "x86_64")]
impl LookUp<1> for pulp::x86::V4 {
    #[inline(always)]
    fn look_up(self, [table]: [pulp::f32x16; 1], codes: pulp::u32x16) -> pulp::f32x16 {
        cast(self.avx512f._mm512_permutexvar_ps(cast(codes), cast(table)))
    }

    #[inline(always)]
    fn words(self, words: u64, _: usize) -> pulp::u32x16 {
        const LANES: pulp::u32x16 = pulp::u32x16(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        let both = self
            .avx512f
            ._mm512_castsi128_si512(cast(pulp::u64x2(words, 0)));
        cast(self.avx512f._mm512_permutexvar_epi32(cast(LANES), both))
    }

    #[inline(always)]
    fn eight(self, words: &[u32; 8], _: usize) -> pulp::u32x16 {
        cast(self.avx512f._mm512_broadcast_i64x4(cast(*words)))
    }

    #[inline(always)]
    fn round_to_f16(self, values: pulp::f32x16) -> pulp::f32x16 {
        let halves = self.avx512f._mm512_cvtps_ph::<0>(cast(values));
        cast(self.avx512f._mm512_cvtph_ps(halves))
    }
}

#[cfg(target_arch = "aarch64")]
impl LookUp<4> for pulp::aarch64::Neon {
    #[inline(always)]
    fn look_up(self, table: [pulp::f32x4; 4], codes: pulp::u32x4) -> pulp::f32x4 {
        use std::arch::aarch64::uint8x16x4_t;

        // From the number of an entry to those of its four bytes.
        let codes = cast(self.and_u32s(codes, self.splat_u32s(15)));
        let each = cast(self.splat_u32s(0x0404_0404));
        let first = cast(self.splat_u32s(0x0302_0100));
        let bytes = self.neon.vmlaq_u32(first, codes, each);
        let [a, b, c, d] = table.map(|part| cast(part));
        cast(self.neon.vqtbl4q_u8(uint8x16x4_t(a, b, c, d), cast(bytes)))
    }
}

/// A computation with look-ups.
pub(super) trait TableOp {
    /// What it computes.
    type Output;

    /// Computes it; has to be inlined.
    fn run<S: LookUp<V>, const V: usize>(self, simd: S) -> Self::Output;
}

/// Computes with the widest vectors that there are.
pub(super) fn dispatch<O: TableOp>(op: O) -> O::Output {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(simd) => Simd::vectorize(simd, With(simd, op)),
        #[cfg(target_arch = "x86_64")]
        Arch::V3(simd) => Simd::vectorize(simd, With(simd, op)),
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(simd) => Simd::vectorize(simd, With(simd, op)),
        _ => op.run(Scalar),
    }
}

/// Computes in every way that this machine can.
#[cfg(test)]
pub(super) fn with_each<O: TableOp + Clone>(op: &O) -> Vec<O::Output> {
    #[cfg(target_arch = "x86_64")]
    let narrower = pulp::x86::V3::try_new().map(|simd| {
        let op = op.clone();
        Simd::vectorize(simd, With(simd, op))
    });
    #[cfg(not(target_arch = "x86_64"))]
    let narrower = None;
    let all = [dispatch(op.clone()), op.clone().run(Scalar)];
    all.into_iter().chain(narrower).collect()
}

/// An operation and the vectors to use, of which the type is known.
struct With<S, O, const V: usize>(S, O);

impl<S: LookUp<V>, O: TableOp, const V: usize> WithSimd for With<S, O, V> {
    type Output = O::Output;

    #[inline(always)]
    fn with_simd<T: Simd>(self, _: T) -> O::Output {
        self.1.run(self.0)
    }
}
