//! The product of small strided matrices in registers, for every instruction set.

use pulp::{MemMask, Simd, WithSimd};

use crate::simd::arch;

/// Vectors in a row of a tile.
const VECTORS: usize = 2;

/// `C = A · B`, or `C += A · B` with `accumulate`, where C, A and B are `rows × cols`,
/// `rows × depth` and `depth × cols`. Element `(i, j)` of C lies at `c[i * c_row + j]`, that of B
/// at `b[i * b_row + j]`, and that of A at `a[i * a_row + j * a_col]`.
///
/// Each element of C is one chain of fused multiplications over `depth`: how the matrices are
/// cut into tiles never changes a result. It is fast when a strip of B, `depth` × two vectors,
/// fits the first-level cache and all of A the second.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub rows: usize,
    pub depth: usize,
    pub cols: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub a_col: usize,
    pub b: *const f32,
    pub b_row: usize,
    pub c: *mut f32,
    pub c_row: usize,
    pub accumulate: bool,
}

impl Product {
    /// Computes it with the widest instructions of this machine.
    ///
    /// # Safety
    /// All elements of A and B are readable, those of C are writable and, with `accumulate`,
    /// initialized; nobody else accesses C meanwhile.
    pub(crate) unsafe fn run(self) {
        arch().dispatch(Checked(self));
    }
}

/// A product whose pointers the caller of [`Product::run`] vouches for.
struct Checked(Product);

impl WithSimd for Checked {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = VECTORS * S::F32_LANES;
        let mut col = 0;
        while col < self.0.cols {
            let strip = Strip {
                simd,
                product: self.0,
                col,
            };
            // SAFETY: the strip lies inside the matrices, which the caller of `run` vouches for.
            unsafe {
                match self.0.cols - col {
                    left if left >= width => strip.run::<VECTORS, false>(),
                    left if left > S::F32_LANES => strip.run::<VECTORS, true>(),
                    _ => strip.run::<1, true>(),
                }
            }
            col += width;
        }
    }
}

/// Columns of C from `col` on, as many as a tile has.
struct Strip<S: Simd> {
    simd: S,
    product: Product,
    col: usize,
}

impl<S: Simd> Strip<S> {
    /// `V` vectors of columns; with `TAIL`, the last one is only partly inside the matrix.
    ///
    /// # Safety
    /// As [`Product::run`].
    #[inline(always)]
    unsafe fn run<const V: usize, const TAIL: bool>(&self) {
        let last = (self.product.cols - self.col) - (V - 1) * S::F32_LANES;
        let mask = self
            .simd
            .mask_between_m32s(0, last.min(S::F32_LANES) as u32);
        let rows = self.product.rows;
        let mut row = 0;
        // SAFETY: rows `row..row + N` are inside the matrix.
        unsafe {
            if S::REGISTER_COUNT >= 32 {
                while rows - row >= 12 {
                    self.tile::<12, V, TAIL>(row, mask);
                    row += 12;
                }
                if rows - row >= 8 {
                    self.tile::<8, V, TAIL>(row, mask);
                    row += 8;
                }
            } else {
                while rows - row >= 6 {
                    self.tile::<6, V, TAIL>(row, mask);
                    row += 6;
                }
            }
            if rows - row >= 4 {
                self.tile::<4, V, TAIL>(row, mask);
                row += 4;
            }
            if rows - row >= 2 {
                self.tile::<2, V, TAIL>(row, mask);
                row += 2;
            }
            if rows - row == 1 {
                self.tile::<1, V, TAIL>(row, mask);
            }
        }
    }

    /// `R` rows of the strip.
    ///
    /// # Safety
    /// As [`Product::run`]; rows `row..row + R` exist, and `mask` covers what is left of the last
    /// vector.
    #[inline(always)]
    unsafe fn tile<const R: usize, const V: usize, const TAIL: bool>(
        &self,
        row: usize,
        mask: MemMask<S::m32s>,
    ) {
        let (simd, p, lanes) = (self.simd, self.product, S::F32_LANES);
        // SAFETY: every access is to an element of the tile, or is masked.
        unsafe {
            let load = |from: *const f32, v: usize| {
                let from = from.add(v * lanes);
                if TAIL && v + 1 == V {
                    simd.mask_load_ptr_f32s(mask, from)
                } else {
                    from.cast::<S::f32s>().read_unaligned()
                }
            };
            let mut sums = [[simd.splat_f32s(0.0); V]; R];
            let mut a = p.a.add(row * p.a_row);
            let mut b = p.b.add(self.col);
            for _ in 0..p.depth {
                let mut line = [simd.splat_f32s(0.0); V];
                for (v, line) in line.iter_mut().enumerate() {
                    *line = load(b, v);
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = simd.splat_f32s(*a.add(r * p.a_row));
                    for (sum, &line) in sums.iter_mut().zip(&line) {
                        *sum = simd.mul_add_f32s(factor, line, *sum);
                    }
                }
                a = a.wrapping_add(p.a_col);
                b = b.wrapping_add(p.b_row);
            }
            for (r, sums) in sums.into_iter().enumerate() {
                let to = p.c.add((row + r) * p.c_row + self.col);
                for (v, mut sum) in sums.into_iter().enumerate() {
                    if p.accumulate {
                        sum = simd.add_f32s(load(to, v), sum);
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
