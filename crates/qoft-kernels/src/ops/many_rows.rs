//! Products of many rows with a packed weight, and how threads share them.

use std::ops::Range;

use rayon::prelude::*;

use super::factor::Factor;
use crate::compute_dtype::ComputeDtype;
use crate::gemm::{
    FEW_ROWS, Mat, MatMut, NC, Pair, Turned, Unit, blocked, few_rows, few_rows_transposed, to_pairs,
};
use crate::scratch::with_scratch;
use crate::weight::PackedWeight;

/// Rows of activations that are too few for bfloat16: what a weight takes to be rounded and packed is not
/// worth it.
const FEW_PAIRS: usize = 24;

/// `x · Wᵀ`, or with `transpose` `x · W`, for rows of activations.
///
/// Each number is a sum of blocks of the inner dimension, of the same length everywhere, added one after
/// another; each block is one chain of fused multiply-adds. So a row's result is the same, bit for bit, for
/// any number of threads, beside any other rows, and on every machine with fused multiply-adds.
pub(super) fn many_rows(
    x: &[f32],
    weight: &dyn PackedWeight,
    transpose: bool,
    dtype: ComputeDtype,
) -> Vec<f32> {
    let from = weight.shape()[usize::from(!transpose)];
    grouped_rows(x, &[(weight, x.len() / from)], transpose, dtype)
}

/// As [`many_rows`] for groups of rows one after another, each with a weight of its own; all weights have the
/// same shape. Threads share all products at once: there may be many small ones.
///
/// In bfloat16 a row's result may be another one in the last digits beside few other rows, whose products
/// are computed in `f32`.
pub(super) fn grouped_rows(
    x: &[f32],
    groups: &[(&dyn PackedWeight, usize)],
    transpose: bool,
    dtype: ComputeDtype,
) -> Vec<f32> {
    let Some([n, k]) = groups.first().map(|(weight, _)| weight.shape()) else {
        return Vec::new();
    };
    let (from, to) = if transpose { (n, k) } else { (k, n) };
    let all: usize = groups.iter().map(|(_, rows)| rows).sum();
    if from == 0 || all * to == 0 {
        return vec![0.0; all * to];
    }
    let mut out = Vec::with_capacity(all * to);
    let c = MatMut::spare(&mut out, all, to);
    let mut pairs = Vec::new();
    let x = Activations::new(Mat::new(x, all, from, from), dtype, &mut pairs);
    let (mut tasks, mut first, threads) = (Vec::new(), 0, rayon::current_num_threads());
    for &(weight, rows) in groups {
        let here = first..first + rows;
        first = here.end;
        let product = Product {
            c: c.rows_of(here.clone()),
            x: x.rows_of(here),
            factor: Factor::new(weight, transpose),
            accumulate: false,
            single: true,
        };
        // A group has parts for so many threads as its share of the work can keep busy.
        let share = (2 * threads * rows).div_ceil(all).min(threads);
        tasks.extend(product.parts(share).map(|part| (product, part)));
    }
    // SAFETY: `out` outlives the products, which do not overlap.
    unsafe { compute(&tasks) }
    // SAFETY: all elements have been written.
    unsafe { out.set_len(all * to) };
    out
}

/// `C = X · factor`, or `C += X · factor` with `accumulate`, shared by all threads. A row's result is the same
/// beside any other rows, and without them.
///
/// # Safety
/// C is there, and nobody else reaches it.
pub(super) unsafe fn product_into(c: MatMut, x: &Activations, factor: Factor, accumulate: bool) {
    let rows = x.x.rows();
    let product = Product {
        c,
        x: x.rows_of(0..rows),
        factor,
        accumulate,
        single: false,
    };
    let parts = product.parts(rayon::current_num_threads());
    let tasks: Vec<_> = parts.map(|part| (product, part)).collect();
    // SAFETY: the caller vouches for C, of which parts do not overlap.
    unsafe { compute(&tasks) }
}

/// Computes parts of products.
///
/// # Safety
/// What they are written to is there, nobody else reaches it, and parts do not overlap.
unsafe fn compute(tasks: &[(Product, [Range<usize>; 2])]) {
    // Threads mostly take one task after another.
    let places = (0..tasks.len()).into_par_iter().with_max_len(1);
    places.for_each(|place| {
        let (product, [rows, cols]) = &tasks[place];
        let next = tasks.get(place + 1);
        let next = next.map(|(product, [_, cols])| (&product.factor, cols.start));
        // SAFETY: the caller vouches for it.
        unsafe { product.part(rows.clone(), cols.clone(), next) }
    });
}

/// Rows of activations in the dtype in which they are multiplied.
#[derive(Clone, Copy)]
pub(super) struct Activations<'a> {
    x: Mat<'a>,
    /// The same in bfloat16, if products are computed in it.
    pairs: Option<Mat<'a, Pair>>,
}

impl<'a> Activations<'a> {
    /// Rows that `near` may have once more.
    pub(super) fn new(x: Mat<'a>, dtype: ComputeDtype, near: &'a mut Vec<Pair>) -> Self {
        /// Rows that a thread rounds.
        const ROWS: usize = 64;
        let pairs = match dtype {
            ComputeDtype::F32 => None,
            ComputeDtype::Bf16 => {
                let units = x.cols().div_ceil(Pair::NUMBERS);
                near.resize(x.rows() * units, 0);
                let parts = near.par_chunks_mut((ROWS * units).max(1)).enumerate();
                parts.for_each(|(i, pairs)| {
                    let rows = i * ROWS..((i + 1) * ROWS).min(x.rows());
                    to_pairs(x.rows_of(rows), pairs);
                });
                Some(Mat::new(near, x.rows(), units, units))
            }
        };
        Self { x, pairs }
    }

    /// Some of them; of few the rounded ones are not needed.
    fn rows_of(&self, rows: Range<usize>) -> Self {
        let pairs = self.pairs.filter(|_| rows.len() > FEW_PAIRS);
        Self {
            x: self.x.rows_of(rows.clone()),
            pairs: pairs.map(|pairs| pairs.rows_of(rows)),
        }
    }
}

/// `C = x · factor`, or `C += x · factor`.
#[derive(Clone, Copy)]
struct Product<'a> {
    c: MatMut,
    x: Activations<'a>,
    factor: Factor<'a>,
    accumulate: bool,
    /// Whether a single row may have other sums, by the kernel that is for it.
    single: bool,
}

impl Product<'_> {
    /// Rectangles of C for so many threads.
    fn parts(&self, threads: usize) -> impl Iterator<Item = [Range<usize>; 2]> + use<> {
        let shape = [self.x.x.rows(), self.c.cols()];
        let grid = match self.x.pairs.is_none() && shape[0] <= FEW_ROWS {
            true => Grid::columns(shape, threads),
            false => Grid::new(shape, threads),
        };
        (0..grid.tasks()).map(move |task| grid.part(task))
    }

    /// Computes a rectangle of C. Of few rows each thread decodes the columns that it needs; then it asks for
    /// the first ones of what is `next`.
    ///
    /// # Safety
    /// C is there, and nobody else reaches this part of it.
    unsafe fn part(&self, rows: Range<usize>, cols: Range<usize>, next: Option<(&Factor, usize)>) {
        let Self {
            c,
            x: Activations { x, pairs },
            factor,
            accumulate,
            single,
        } = *self;
        let part = || c.rows_of(rows.clone()).columns(cols.start, cols.len());
        // SAFETY: the caller vouches for it.
        unsafe {
            if let Some(pairs) = pairs {
                blocked::<Pair>(
                    part(),
                    pairs.rows_of(rows.clone()),
                    &factor,
                    cols.start,
                    accumulate,
                );
            } else if single && x.rows() == 1 && !factor.transpose {
                let y = c.columns(cols.start, cols.len()).zeroed_row();
                factor.dot(cols, x.first_row(), y);
            } else if x.rows() > FEW_ROWS {
                blocked::<f32>(
                    part(),
                    x.rows_of(rows.clone()),
                    &factor,
                    cols.start,
                    accumulate,
                );
            } else if factor.transpose {
                few_rows_transposed(c, x, cols, &factor, next, accumulate);
            } else {
                with_scratch(Turned::length(x.rows(), x.cols()), |turned| {
                    let x = Turned::new(x, turned);
                    few_rows(c, &x, cols, &factor, next, accumulate);
                });
            }
        }
    }
}

/// How a product is cut into parts for threads.
struct Grid {
    shape: [usize; 2],
    /// Rows and columns of a part.
    part: [usize; 2],
    across: usize,
}

impl Grid {
    /// Times of a thread, in those of a multiplication of the widest vectors: that for a decoded and packed
    /// weight, that for a number of x that is copied, and how many products it does meanwhile.
    const DECODING: f64 = 0.7;
    const COPYING: f64 = 0.2;
    const PRODUCTS: f64 = 16.0;
    /// Rows of a part, and columns, are multiples.
    const UNITS: [usize; 2] = [12, NC];
    /// Rows that a decoded weight meets, at most.
    const ROWS: usize = 528;

    /// The parts of which the last thread is ready first: each thread has as much as all others, but parts
    /// that share columns decode the same weights.
    fn new(shape: [usize; 2], threads: usize) -> Self {
        let [rows, cols] = shape;
        let mut best: Option<(f64, Self)> = None;
        for down in 1..=threads.min(rows.div_ceil(Self::UNITS[0])) {
            for waves in 1..=3 {
                let across = (waves * threads).div_ceil(down);
                let size = |length: usize, parts: usize, i: usize| {
                    length.div_ceil(parts).next_multiple_of(Self::UNITS[i])
                };
                let part = [size(rows, down, 0), size(cols, across, 1)];
                let across = cols.div_ceil(part[1]);
                let [height, width] = part.map(|size| size as f64);
                let decoding = Self::DECODING * width * rows.div_ceil(down * Self::ROWS) as f64;
                let each = height * width / Self::PRODUCTS + decoding + Self::COPYING * height;
                let grid = Self {
                    shape,
                    part,
                    across,
                };
                let time = each * grid.tasks().div_ceil(threads) as f64;
                if best.as_ref().is_none_or(|(least, _)| time < *least) {
                    best = Some((time, grid));
                }
            }
        }
        best.map_or(
            Self {
                shape,
                part: shape,
                across: 1,
            },
            |(_, grid)| grid,
        )
    }

    /// All rows with the columns of each thread.
    fn columns(shape: [usize; 2], threads: usize) -> Self {
        let width = shape[1].div_ceil(threads).next_multiple_of(16);
        Self {
            shape,
            part: [shape[0], width],
            across: shape[1].div_ceil(width),
        }
    }

    /// How many parts there are.
    fn tasks(&self) -> usize {
        self.shape[0].div_ceil(self.part[0]) * self.across
    }

    /// The rows and columns of a part.
    fn part(&self, index: usize) -> [Range<usize>; 2] {
        let at = [index / self.across, index % self.across];
        std::array::from_fn(|i| {
            let start = at[i] * self.part[i];
            start..(start + self.part[i]).min(self.shape[i])
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::packed_matmul;
    use super::super::testing::random;
    use super::*;
    use crate::{
        CodeMap, Codes, DenseWeight, FloatFormat, Floats, GroupedWeight, Groups, Scales,
        computed_in,
    };

    #[test]
    fn parts_cover_the_product_once() {
        for [rows, cols] in [[1, 1], [4096, 192], [129, 11008], [513, 577], [200, 40]] {
            for threads in [1, 2, 3, 7, 64] {
                let grid = Grid::new([rows, cols], threads);
                let mut seen = vec![0u8; rows * cols];
                for task in 0..grid.tasks() {
                    let [rows, of_cols] = grid.part(task);
                    assert!(!rows.is_empty() && !of_cols.is_empty());
                    for row in rows {
                        let line = &mut seen[row * cols..][of_cols.clone()];
                        line.iter_mut().for_each(|seen| *seen += 1);
                    }
                }
                assert!(
                    seen.iter().all(|&seen| seen == 1),
                    "{rows} {cols} {threads}"
                );
            }
        }
    }

    #[test]
    fn many_threads_have_work_where_columns_are_few() {
        let grid = Grid::new([4096, 192], 32);
        assert!(grid.tasks() >= 32, "{} parts", grid.tasks());
        assert_eq!(Grid::new([512, 576], 2).tasks(), 2);
    }

    fn weights(n: usize, k: usize) -> [Arc<dyn PackedWeight>; 2] {
        let codes = Codes::pack(4, (0..n * k).map(|i| (i * 7 + i / 13) as u8));
        let scales = Scales::Plain(
            Floats::from_f32(&random((n * k).div_ceil(64), 9), FloatFormat::F32).unwrap(),
        );
        let parts =
            GroupedWeight::builder([n, k], codes, CodeMap::Unsigned, Groups::Flat(64), scales);
        [
            Arc::new(DenseWeight::from_f32(&random(n * k, 3), [n, k])),
            Arc::new(parts.build("test").unwrap()),
        ]
    }

    /// Any number of threads, and any rows beside a row, give the same bytes; in bfloat16 if they are not few.
    #[test]
    fn bytes_depend_on_neither_threads_nor_rows() {
        // Far rows on one side, and on the other one several blocks of the inner dimension.
        for (n, k) in [(70, 1024), (530, 197)] {
            for weight in weights(n, k) {
                for dtype in [ComputeDtype::F32, ComputeDtype::Bf16] {
                    let weight = computed_in(weight.clone(), dtype);
                    for transpose in [false, true] {
                        same_bytes(&*weight, transpose);
                    }
                }
            }
        }
    }

    fn same_bytes(weight: &dyn PackedWeight, transpose: bool) {
        let [n, k] = weight.shape();
        let from = if transpose { n } else { k };
        let to = n + k - from;
        let x = random(600 * from, 5);
        let product = |rows: Range<usize>, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let x = &x[rows.start * from..rows.end * from];
            let of = || packed_matmul(x, weight, transpose);
            pool.build().unwrap().install(of)
        };
        let all = product(0..600, 1);
        for threads in [2, 3, 4, 7] {
            assert!(product(0..600, threads) == all, "{threads} threads");
        }
        for rows in [
            0..2,
            3..10,
            7..26,
            100..228,
            100..229,
            11..311,
            5..74,
            90..119,
        ] {
            if weight.compute_dtype() == ComputeDtype::F32 || rows.len() > FEW_PAIRS {
                let part = &all[rows.start * to..rows.end * to];
                assert!(product(rows.clone(), 2) == part, "rows {rows:?}");
            }
        }
    }

    /// Sizes around those of blocks, against the definition in twice the precision.
    #[test]
    fn products_are_those_of_the_definition() {
        for (rows, n, k) in [
            (2, 25, 769),
            (17, 353, 193),
            (128, 33, 385),
            (129, 97, 400),
            (541, 31, 50),
        ] {
            for weight in weights(n, k) {
                let w = crate::Matrix::decode(&*weight).values;
                for transpose in [false, true] {
                    let (from, to) = if transpose { (n, k) } else { (k, n) };
                    let x = random(rows * from, 6);
                    let y = packed_matmul(&x, &*weight, transpose);
                    for (row, y) in y.chunks_exact(to).enumerate().step_by(5) {
                        for (col, y) in y.iter().enumerate() {
                            let at = |i: usize| if transpose { i * k + col } else { col * k + i };
                            let terms = (0..from)
                                .map(|i| f64::from(x[row * from + i]) * f64::from(w[at(i)]));
                            let size: f64 = terms.clone().map(f64::abs).sum();
                            let off = (f64::from(*y) - terms.sum::<f64>()).abs();
                            assert!(off <= 1e-6 * size, "{rows} {n} {k} {off} of {size}");
                        }
                    }
                }
            }
        }
    }
}
