//! Products of a layer's inputs with themselves.

use std::ops::Range;

use qoft_kernels::gemm::{Mat, matmul};
use rayon::prelude::*;

/// Rows of the sum that a thread takes at once.
const BAND: usize = 64;

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

    /// The rows of the lower triangle, with the diagonal, one after another.
    pub fn lower(&self) -> impl Iterator<Item = &[f32]> {
        (0..self.width).map(|i| &self.sums[i * self.width..][..=i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
