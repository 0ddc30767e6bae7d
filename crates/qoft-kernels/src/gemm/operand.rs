//! Operands of products: how they are packed and multiplied.

use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::x86::V4;

use super::Mat;
use super::kernel::{Checked, MacroKernel, Multiply};
use super::unit::{Pair, Unit, multiplies_pairs};
use super::{pack, pairs};
use crate::simd::{Arch, arch};

/// Units that blocks of a matrix are packed into, and multiplied by.
pub(crate) trait Operand: Unit {
    /// Computes a macro-kernel.
    ///
    /// # Safety
    /// As [`MacroKernel::run`].
    unsafe fn run(kernel: MacroKernel<Self>);

    /// Packs columns `col..col + nc` of rows `row..row + kc` of `b`, counted in numbers, into a panel: a row
    /// of units is [`NC`](super::NC) wide. Numbers that a last unit lacks are zero.
    fn pack(b: Mat, rows: [usize; 2], cols: [usize; 2], panel: &mut [Self]);
}

impl<E: Operand> MacroKernel<E> {
    /// Computes it with the widest instructions of this machine.
    ///
    /// # Safety
    /// All elements of A and B and, if there is one, of `before` are readable and initialized, those of C
    /// are writable; nobody else accesses C meanwhile.
    pub(crate) unsafe fn run(self) {
        // SAFETY: the caller vouches for it.
        unsafe { E::run(self) }
    }
}

impl Operand for f32 {
    unsafe fn run(kernel: MacroKernel) {
        #[cfg(target_arch = "x86_64")]
        if let (Arch::V4(simd), ..=8) = (arch(), kernel.nc) {
            // Half of a vector takes half the time, or lets two of them be multiplied at once.
            return Arch::V3(*simd).dispatch(Checked(kernel, Fused));
        }
        arch().dispatch(Checked(kernel, Fused));
    }

    fn pack(b: Mat, rows: [usize; 2], cols: [usize; 2], panel: &mut [Self]) {
        pack::pack(b, rows, cols, panel);
    }
}

/// One fused multiplication.
#[derive(Clone, Copy)]
struct Fused;

impl Multiply for Fused {
    type Unit = f32;

    #[inline(always)]
    fn mul_add<S: Simd>(self, simd: S, a: f32, b: S::f32s, sum: S::f32s) -> S::f32s {
        simd.mul_add_f32s(simd.splat_f32s(a), b, sum)
    }
}

impl Operand for Pair {
    unsafe fn run(kernel: MacroKernel<Self>) {
        #[cfg(target_arch = "x86_64")]
        if let (Arch::V4(simd), true) = (arch(), multiplies_pairs()) {
            // SAFETY: the features were detected.
            return unsafe { run_at_once(simd, kernel) };
        }
        arch().dispatch(Checked(kernel, OneByOne));
    }

    fn pack(b: Mat, rows: [usize; 2], cols: [usize; 2], panel: &mut [Self]) {
        pairs::pack_pairs(b, rows, cols, panel);
    }
}

/// Both products of pairs by one instruction, `vdpbf16ps`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct AtOnce;

/// # Safety
/// The machine has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn run_at_once(simd: V4, kernel: MacroKernel<Pair>) {
    use pulp::WithSimd;
    Checked(kernel, AtOnce).with_simd(simd);
}

#[cfg(target_arch = "x86_64")]
impl Multiply for AtOnce {
    type Unit = Pair;

    #[inline(always)]
    fn mul_add<S: Simd>(self, _: S, a: Pair, b: S::f32s, sum: S::f32s) -> S::f32s {
        use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps, _mm512_set1_epi32};
        use std::mem::{transmute, transmute_copy};
        assert_eq!(size_of::<S::f32s>(), size_of::<__m512>());
        // SAFETY: the vectors have the same size, as was just asserted, and all bits are values of them;
        // only `run_at_once` multiplies like this, where the feature is there.
        unsafe {
            let b: __m512bh = transmute_copy(&b);
            let a: __m512bh = transmute(_mm512_set1_epi32(a as i32));
            let sum = _mm512_dpbf16_ps(transmute_copy::<_, __m512>(&sum), a, b);
            transmute_copy(&sum)
        }
    }
}

/// The same, to the last bit but for numbers below the smallest normal one, one product after another.
///
/// The instruction adds the product of the second numbers first, and rounds after each addition.
#[derive(Clone, Copy)]
struct OneByOne;

impl OneByOne {
    /// The second numbers of pairs.
    #[inline(always)]
    fn second<S: Simd>(simd: S, pairs: S::u32s) -> S::f32s {
        simd.transmute_f32s_u32s(simd.and_u32s(pairs, simd.splat_u32s(0xffff_0000)))
    }

    /// The first numbers of pairs.
    #[inline(always)]
    fn first<S: Simd>(simd: S, pairs: S::u32s) -> S::f32s {
        simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(pairs, simd.splat_u32s(16)))
    }
}

impl Multiply for OneByOne {
    type Unit = Pair;

    #[inline(always)]
    fn mul_add<S: Simd>(self, simd: S, a: Pair, b: S::f32s, sum: S::f32s) -> S::f32s {
        let b = simd.transmute_u32s_f32s(b);
        let second = simd.splat_f32s(f32::from_bits(a & 0xffff_0000));
        let first = simd.splat_f32s(f32::from_bits(a << 16));
        let sum = simd.mul_add_f32s(second, Self::second(simd, b), sum);
        simd.mul_add_f32s(first, Self::first(simd, b), sum)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::to_pairs;
    use super::super::{MatMut, blocked};
    use super::*;
    use crate::ops::testing::random;

    /// Numbers in bfloat16 of all magnitudes that sums do not lose.
    fn pairs(rows: usize, cols: usize, seed: u64) -> Vec<Pair> {
        let values: Vec<f32> = random(rows * cols, seed)
            .into_iter()
            .enumerate()
            .map(|(i, v)| v * 2f32.powi(i as i32 % 17 - 8))
            .collect();
        let mut pairs = vec![0; rows * cols.div_ceil(2)];
        to_pairs(Mat::new(&values, rows, cols, cols), &mut pairs);
        pairs
    }

    /// The definition: the second product is added first, with a rounding after each.
    fn definition(a: &[Pair], b: &[Pair], nc: usize, col: usize) -> f32 {
        let of = |pair: Pair| {
            [
                f32::from_bits(pair << 16),
                f32::from_bits(pair & 0xffff_0000),
            ]
        };
        a.iter().enumerate().fold(0.0, |sum, (k, &a)| {
            let ([a0, a1], [b0, b1]) = (of(a), of(b[k * nc + col]));
            a0.mul_add(b0, a1.mul_add(b1, sum))
        })
    }

    #[test]
    fn all_ways_to_multiply_pairs_give_the_same_bits() {
        for (mc, kc, nc) in [(1, 1, 1), (13, 7, 32), (12, 96, 17), (25, 33, 7)] {
            let (a, b) = (pairs(mc, 2 * kc, 1), pairs(kc, 2 * nc, 2));
            let kernel = |c: &mut [f32]| MacroKernel {
                mc,
                kc,
                nc,
                a: a.as_ptr(),
                a_row_stride: kc,
                a_col_stride: 1,
                b: b.as_ptr(),
                b_row_stride: nc,
                before: std::ptr::null(),
                before_row_stride: 0,
                c: c.as_mut_ptr(),
                c_row_stride: nc,
                ahead: super::super::Ahead::NOTHING,
            };
            let (mut best, mut one_by_one) = (vec![0.0; mc * nc], vec![0.0; mc * nc]);
            // SAFETY: all matrices have these sizes.
            unsafe { Pair::run(kernel(&mut best)) };
            arch().dispatch(Checked(kernel(&mut one_by_one), OneByOne));
            for (i, (best, other)) in best.iter().zip(&one_by_one).enumerate() {
                let expected = definition(&a[i / nc * kc..][..kc], &b, nc, i % nc);
                assert_eq!(best.to_bits(), expected.to_bits(), "{mc} {kc} {nc} {i}");
                assert_eq!(other.to_bits(), expected.to_bits(), "{mc} {kc} {nc} {i}");
            }
        }
    }

    /// Both orders of B, with an odd inner dimension of more than one block, against the product of rounded
    /// numbers in twice the precision.
    #[test]
    fn products_are_those_of_rounded_numbers() {
        let round = |v: f32| f64::from(half::bf16::from_f32(v).to_f32());
        for (m, n, k) in [(5, 3, 1), (14, 33, 771), (530, 40, 5)] {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let units = k.div_ceil(2);
            let mut near = vec![0; m * units];
            to_pairs(Mat::new(&a, m, k, k), &mut near);
            let rows = Mat::new(&near, m, units, units);
            for turned in [false, true] {
                let b_mat = match turned {
                    false => Mat::new(&b, k, n, n),
                    true => Mat::new(&b, n, k, k).t(),
                };
                let mut c = vec![0.5; m * n];
                let of_c = MatMut::new(&mut c, m, n, n);
                // SAFETY: C is borrowed exclusively.
                unsafe { blocked::<Pair>(of_c, rows, &b_mat, 0, true) }
                for (i, c) in c.iter().enumerate() {
                    let (row, col) = (i / n, i % n);
                    let at = |j: usize| if turned { col * k + j } else { j * n + col };
                    let terms = (0..k).map(|j| round(a[row * k + j]) * round(b[at(j)]));
                    let size: f64 = 0.5 + terms.clone().map(f64::abs).sum::<f64>();
                    let off = (f64::from(*c) - 0.5 - terms.sum::<f64>()).abs();
                    assert!(off <= 2e-6 * size, "{m} {n} {k} {i}: {off} of {size}");
                }
            }
        }
    }
}
