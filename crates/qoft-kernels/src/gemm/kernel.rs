//! The macro-kernel and its micro-kernels: products of small strided matrices in registers, for every
//! instruction set.

use std::hint::black_box;

use pulp::{MemMask, Simd, WithSimd};

use super::ahead::{Ahead, Fetch};
use super::unit::Unit;
use crate::simd::prefetch_at;

/// Vectors in a row of a micro-tile: `nr` is two vectors.
const NR_VECTORS: usize = 2;
/// Steps of the inner dimension between which memory is asked for.
const CHUNK: usize = 8;

/// `C = A · B`, or with `before` the sum of that matrix and the product, where C, A and B are `mc × nc`,
/// `mc × kc` and `kc × nc`. Element `(i, j)` of C lies at `c[i * c_row_stride + j]`, those of B and of
/// `before` likewise, and that of A at `a[i * a_row_stride + j * a_col_stride]`.
///
/// Each element of C is one chain of fused multiplications over `kc`, to which that of `before` is added in
/// the end: how the matrices are cut into micro-tiles never changes a result. It is fast when a micro-panel
/// of B, `kc × nr`, fits the first-level cache and all of A the second. Elements of A and B are any
/// [`Unit`], with several numbers of the inner dimension or one.
#[derive(Clone, Copy)]
pub(crate) struct MacroKernel<E = f32> {
    pub mc: usize,
    pub kc: usize,
    pub nc: usize,
    pub a: *const E,
    pub a_row_stride: usize,
    pub a_col_stride: usize,
    pub b: *const E,
    pub b_row_stride: usize,
    /// Null, or where a matrix lies that is added; it may be C.
    pub before: *const f32,
    pub before_row_stride: usize,
    pub c: *mut f32,
    pub c_row_stride: usize,
    /// What will be read after this product: it is asked for meanwhile.
    pub ahead: Ahead,
}

/// How units are multiplied.
pub(super) trait Multiply: Copy {
    /// What the matrices are made of.
    type Unit: Unit;

    /// `sum + a · b`, where `b` has the bits of a vector of units.
    fn mul_add<S: Simd>(self, simd: S, a: Self::Unit, b: S::f32s, sum: S::f32s) -> S::f32s;
}

/// A product whose pointers the caller of [`MacroKernel::run`] vouches for.
pub(super) struct Checked<M: Multiply>(pub MacroKernel<M::Unit>, pub M);

impl<M: Multiply> WithSimd for Checked<M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let nr = NR_VECTORS * S::F32_LANES;
        let tiles = self.0.mc.div_ceil(MicroPanel::<S, M>::MOST_ROWS) * self.0.nc.div_ceil(nr);
        let mut fetch = Fetch::new(self.0.ahead, tiles * self.0.kc.div_ceil(CHUNK));
        let mut col = 0;
        while col < self.0.nc {
            let panel = MicroPanel {
                simd,
                multiply: self.1,
                product: self.0,
                col,
            };
            // SAFETY: the panel lies inside the matrices, which the caller of `run` vouches for.
            unsafe {
                match self.0.nc - col {
                    left if left >= nr => panel.run::<NR_VECTORS, false>(&mut fetch),
                    left if left > S::F32_LANES => panel.run::<NR_VECTORS, true>(&mut fetch),
                    left if left == S::F32_LANES => panel.run::<1, false>(&mut fetch),
                    _ => panel.run::<1, true>(&mut fetch),
                }
            }
            col += nr;
        }
    }
}

/// The micro-panel of B, and of C, from column `col` on: `nr` columns.
struct MicroPanel<S: Simd, M: Multiply> {
    simd: S,
    multiply: M,
    product: MacroKernel<M::Unit>,
    col: usize,
}

impl<S: Simd, M: Multiply> MicroPanel<S, M> {
    /// Rows of a micro-tile of two vectors at most.
    const MOST_ROWS: usize = if S::REGISTER_COUNT >= 32 { 12 } else { 6 };

    /// All micro-tiles of C with `V` vectors of columns; with `TAIL`, the last one is only partly
    /// inside the matrix. `mr` is what the registers have room for, and less for the last rows.
    ///
    /// # Safety
    /// As [`MacroKernel::run`].
    #[inline(always)]
    unsafe fn run<const V: usize, const TAIL: bool>(&self, fetch: &mut Fetch) {
        let last = (self.product.nc - self.col) - (V - 1) * S::F32_LANES;
        let mask = self
            .simd
            .mask_between_m32s(0, last.min(S::F32_LANES) as u32);
        let rows = self.product.mc;
        let mut row = 0;
        // SAFETY: rows `row..row + MR` are inside the matrix.
        unsafe {
            if S::REGISTER_COUNT >= 32 || V == 1 {
                while rows - row >= 12 {
                    self.micro_kernel::<12, V, TAIL>(row, mask, fetch);
                    row += 12;
                }
                if rows - row >= 8 {
                    self.micro_kernel::<8, V, TAIL>(row, mask, fetch);
                    row += 8;
                }
            } else {
                while rows - row >= 6 {
                    self.micro_kernel::<6, V, TAIL>(row, mask, fetch);
                    row += 6;
                }
            }
            if rows - row >= 4 {
                self.micro_kernel::<4, V, TAIL>(row, mask, fetch);
                row += 4;
            }
            if rows - row >= 2 {
                self.micro_kernel::<2, V, TAIL>(row, mask, fetch);
                row += 2;
            }
            if rows - row == 1 {
                self.micro_kernel::<1, V, TAIL>(row, mask, fetch);
            }
        }
    }

    /// The micro-tile of rows `row..row + MR`, as a sum of outer products.
    ///
    /// # Safety
    /// As [`MacroKernel::run`]; rows `row..row + MR` exist, and `mask` covers what is left of the
    /// last vector.
    #[inline(always)]
    unsafe fn micro_kernel<const MR: usize, const V: usize, const TAIL: bool>(
        &self,
        row: usize,
        mask: MemMask<S::m32s>,
        fetch: &mut Fetch,
    ) {
        let (simd, p, lanes) = (self.simd, self.product, S::F32_LANES);
        // SAFETY: every access is to an element of the micro-tile, or is masked.
        unsafe {
            let load = |from: *const f32, v: usize| {
                let from = from.add(v * lanes);
                if TAIL && v + 1 == V {
                    simd.mask_load_ptr_f32s(mask, from)
                } else {
                    from.cast::<S::f32s>().read_unaligned()
                }
            };
            // The micro-tile of C is needed at the end, and may have to come from memory.
            let accumulate = !p.before.is_null();
            if accumulate {
                for r in 0..MR {
                    let line = p
                        .before
                        .wrapping_add((row + r) * p.before_row_stride + self.col);
                    for v in 0..V {
                        prefetch_at(line.wrapping_add(v * lanes));
                    }
                }
            }
            let mut sums = [[simd.splat_f32s(0.0); V]; MR];
            let mut a = row_pointers::<MR, _>(p.a.add(row * p.a_row_stride), p.a_row_stride);
            let mut b = p.b.add(self.col);
            let mut left = p.kc;
            while left > 0 {
                fetch.some();
                let steps = left.min(CHUNK);
                left -= steps;
                for _ in 0..steps {
                    let mut b_row = [simd.splat_f32s(0.0); V];
                    for (v, b_row) in b_row.iter_mut().enumerate() {
                        *b_row = load(b.cast(), v);
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let at = a[r / 3].wrapping_add(r % 3 * p.a_row_stride);
                        for (sum, &b_row) in sums.iter_mut().zip(&b_row) {
                            *sum = self.multiply.mul_add(simd, *at, b_row, *sum);
                        }
                    }
                    for a in &mut a[..MR.div_ceil(3)] {
                        *a = a.wrapping_add(p.a_col_stride);
                    }
                    b = b.wrapping_add(p.b_row_stride);
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                let to = p.c.add((row + r) * p.c_row_stride + self.col);
                for (v, mut sum) in sums.into_iter().enumerate() {
                    if accumulate {
                        let before = p.before.add((row + r) * p.before_row_stride + self.col);
                        sum = simd.add_f32s(load(before, v), sum);
                    }
                    let to = to.add(v * lanes);
                    if TAIL && v + 1 == V {
                        simd.mask_store_ptr_f32s(mask, to, sum);
                    } else {
                        to.cast::<S::f32s>().write_unaligned(sum);
                    }
                }
            }
        }
    }
}

/// Where each third row of a micro-tile begins.
///
/// From each of these the processor reaches three rows by itself. The compiler, if it knew that they are as
/// far from each other, would go from row to row by one addition after another, which together take longer
/// than the multiplications.
#[inline(always)]
fn row_pointers<const MR: usize, E>(first: *const E, stride: usize) -> [*const E; 4] {
    std::array::from_fn(|i| {
        let row = first.wrapping_add(3 * i * stride);
        if 3 * i < MR { black_box(row) } else { row }
    })
}
