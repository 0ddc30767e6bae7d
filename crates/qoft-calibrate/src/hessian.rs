//! Products of a layer's inputs with themselves.

use std::ops::Range;

use qoft_kernels::Matrix;
use qoft_kernels::gemm::{Mat, matmul};
use rayon::prelude::*;

/// Rows of the sum that a thread takes at once.
const BAND: usize = 64;

/// How much of a change of a weight is in the outputs of its layer.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Kept {
    /// `⟨written − before, changed − before⟩ / ‖changed − before‖²`, with `⟨a, b⟩ = a H bᵀ` summed
    /// over rows: the same as for the layer's outputs, of which `H` knows all that matters. 1 if
    /// nothing was to change.
    pub share: f64,
    /// `‖changed − before‖ / ‖before‖` of the outputs.
    pub relative: f64,
    /// `‖written − changed‖ / ‖changed − before‖` of the outputs, 0 if nothing was to change.
    pub error: f64,
}

/// `H = Σ x xᵀ` over input rows `x` of a layer: up to a factor, the second derivative of the
/// squared error of the layer's outputs by a row of its weight (Frantar et al., GPTQ,
/// arXiv 2210.17323, section 3).
#[derive(Debug, Clone, PartialEq)]
pub struct Hessian {
    width: usize,
    /// `[width, width]`, of which only the lower triangle is computed.
    sums: Vec<f32>,
}

impl Hessian {
    /// The sum over no rows, for a layer of so many input features.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            sums: vec![0.0; width * width],
        }
    }

    /// From the values that [`Self::lower`] gives; `None` if they are too few or too many.
    pub fn from_lower(width: usize, lower: &[f32]) -> Option<Self> {
        let count = width.checked_mul(width.checked_add(1)?)? / 2;
        if lower.len() != count {
            return None;
        }
        let mut hessian = Self::new(width);
        let mut rest = lower;
        for i in 0..width {
            let row;
            (row, rest) = rest.split_at(i + 1);
            hessian.sums[i * width..][..=i].copy_from_slice(row);
        }
        Some(hessian)
    }

    /// Adds `x xᵀ` of rows of `width` values each. What is left behind the last whole row does not
    /// count.
    pub fn add(&mut self, rows: &[f32]) {
        let width = self.width;
        if width == 0 {
            return;
        }
        let count = rows.len() / width;
        let bands = self.sums.par_chunks_mut(BAND * width).enumerate();
        bands.for_each(|(band, sums)| {
            let (first, height) = (band * BAND, sums.len() / width);
            let columns = |Range { start, end }: Range<usize>| {
                Mat::new(rows.get(start..).unwrap_or(&[]), count, end - start, width)
            };
            let end = first + height;
            matmul(sums, width, columns(first..end).t(), columns(0..end), true);
        });
    }

    /// Input features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The sum of the products of features `i` and `j`.
    ///
    /// # Panics
    /// If there are not so many features.
    pub fn get(&self, i: usize, j: usize) -> f32 {
        self.sums[i.max(j) * self.width + i.min(j)]
    }

    /// `‖found − wanted‖ / ‖wanted‖` of the outputs of two weights `[rows, width]` of one shape; `None`
    /// if they are for another number of inputs.
    pub fn relative_error(&self, found: &Matrix, wanted: &Matrix) -> Option<f64> {
        let nothing = Matrix::new(vec![0.0; wanted.values.len()], wanted.shape);
        self.kept(&nothing, wanted, found).map(|kept| kept.error)
    }

    /// The squared size of the outputs of a weight `[rows, width]`, `Σ w H wᵀ` over its rows; `None` if
    /// it is for another number of inputs.
    pub fn squared(&self, weight: &Matrix) -> Option<f64> {
        let width = self.width;
        if width == 0 || weight.shape[1] != width {
            return None;
        }
        let full = self.full();
        let bands = weight.values.par_chunks(BAND * width);
        let sums: Vec<f64> = bands
            .map(|rows| dot(&times(rows, &full, width), rows))
            .collect();
        Some(sums.iter().sum())
    }

    /// The same for inputs that are divided by factors, one for each feature.
    #[must_use]
    pub fn divided(mut self, factors: &[f32]) -> Self {
        let rows = self.sums.chunks_exact_mut(self.width.max(1)).zip(factors);
        for (row, by) in rows {
            row.iter_mut()
                .zip(factors)
                .for_each(|(sum, factor)| *sum /= by * factor);
        }
        self
    }

    /// `[width, width]` without the gap above the diagonal.
    fn full(&self) -> Vec<f32> {
        let width = self.width;
        let mut full = vec![0.0; width * width];
        let rows = full.par_chunks_exact_mut(width).enumerate();
        rows.for_each(|(i, row)| (0..width).for_each(|j| row[j] = self.get(i, j)));
        full
    }

    /// Compares the outputs of three weights `[rows, width]` of one shape; `None` if they are for
    /// another number of inputs.
    pub fn kept(&self, before: &Matrix, changed: &Matrix, written: &Matrix) -> Option<Kept> {
        let width = self.width;
        if width == 0 || before.shape[1] != width {
            return None;
        }
        let full = self.full();
        let [before, changed, written] =
            [before, changed, written].map(|m| m.values.par_chunks(BAND * width));
        let bands = before.zip(changed).zip(written);
        let sums = bands.map(|((before, changed), written)| {
            let change: Vec<f32> = changed.iter().zip(before).map(|(a, b)| a - b).collect();
            let off: Vec<f32> = written.iter().zip(changed).map(|(a, b)| a - b).collect();
            let times = |rows: &[f32]| times(rows, &full, width);
            let (by_change, by_off) = (times(&change), times(&off));
            [
                dot(&by_change, &change),
                dot(&by_change, &off),
                dot(&by_off, &off),
                dot(&times(before), before),
            ]
        });
        // In the order of the rows, for any number of threads.
        let sums: Vec<[f64; 4]> = sums.collect();
        let [change, along, off, size] =
            std::array::from_fn(|i| sums.iter().map(|sums| sums[i]).sum::<f64>());
        if change <= 0.0 {
            return Some(Kept {
                share: 1.0,
                relative: 0.0,
                error: 0.0,
            });
        }
        Some(Kept {
            share: 1.0 + along / change,
            relative: (change / size.max(f64::MIN_POSITIVE)).sqrt(),
            error: (off.max(0.0) / change).sqrt(),
        })
    }

    /// The rows of the lower triangle, with the diagonal, one after another.
    pub fn lower(&self) -> impl Iterator<Item = &[f32]> {
        (0..self.width).map(|i| &self.sums[i * self.width..][..=i])
    }
}

/// Rows of `width` values times a matrix `[width, width]`.
fn times(rows: &[f32], full: &[f32], width: usize) -> Vec<f32> {
    let mut product = vec![0.0f32; rows.len()];
    let rows = Mat::new(rows, rows.len() / width, width, width);
    let full = Mat::new(full, width, width, width);
    matmul(&mut product, width, rows, full, false);
    product
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_the_outputs_show() {
        let (width, rows) = (5, 70);
        let inputs: Vec<f32> = (0..width * 9).map(|i| (i * i % 13) as f32 - 6.0).collect();
        let mut hessian = Hessian::new(width);
        hessian.add(&inputs);
        let matrix = |seed: usize| {
            Matrix::new(
                (0..rows * width)
                    .map(|i| ((i * seed + i / 7) % 11) as f32 - 5.0)
                    .collect(),
                [rows, width],
            )
        };
        let (before, changed, written) = (matrix(3), matrix(5), matrix(7));
        let outputs = |a: &Matrix, b: &Matrix| -> Vec<f64> {
            let off = |n: usize, k: usize| f64::from(a.row(n)[k] - b.row(n)[k]);
            let rows = (0..rows).flat_map(|n| inputs.chunks(width).map(move |x| (n, x)));
            let output =
                |(n, x): (usize, &[f32])| (0..width).map(|k| off(n, k) * f64::from(x[k])).sum();
            rows.map(output).collect()
        };
        let (change, arrived, off) = (
            outputs(&changed, &before),
            outputs(&written, &before),
            outputs(&written, &changed),
        );
        let product = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let size = product(&change, &change);
        let kept = hessian.kept(&before, &changed, &written).unwrap();
        assert!((kept.share - product(&arrived, &change) / size).abs() < 1e-5);
        assert!((kept.error - (product(&off, &off) / size).sqrt()).abs() < 1e-5);
        let none = hessian.kept(&before, &before, &written).unwrap();
        assert_eq!((none.share, none.relative), (1.0, 0.0));
        assert_eq!(Hessian::new(4).kept(&before, &changed, &written), None);
    }

    #[test]
    fn sums_are_those_of_all_rows() {
        for width in [1, 3, 64, 150] {
            let rows: Vec<f32> = (0..width * 7).map(|i| (i % 11) as f32 - 5.0).collect();
            let mut hessian = Hessian::new(width);
            let (some, others) = rows.split_at(width * 3);
            hessian.add(some);
            hessian.add(&[]);
            hessian.add(others);
            for i in 0..width {
                for j in 0..width {
                    let sum: f32 = rows.chunks(width).map(|x| x[i] * x[j]).sum();
                    assert_eq!(hessian.get(i, j), sum);
                }
            }
            let lower: Vec<f32> = hessian.lower().flatten().copied().collect();
            let again = Hessian::from_lower(width, &lower).unwrap();
            assert_eq!(again.get(width - 1, 0), hessian.get(0, width - 1));
            assert_eq!(Hessian::from_lower(width + 1, &lower), None);
        }
    }
}
