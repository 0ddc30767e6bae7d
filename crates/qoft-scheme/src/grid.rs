//! How weights are quantized once a scheme has chosen its scales.

use qoft_kernels::Matrix;
use rayon::prelude::*;

/// The numbers that a scheme can store, with its scales fixed.
pub trait Grid: Sync {
    /// The code that the scheme gives `value` as weight `(n, k)`, and the number that the code
    /// stands for.
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32);

    /// The codes that [`Self::nearest`] gives the weights of row `n`, for grids that find those of
    /// a whole row faster.
    fn nearest_in_row(&self, n: usize, values: &[f32], codes: &mut [u8]) {
        for (k, (code, &value)) in codes.iter_mut().zip(values).enumerate() {
            *code = self.nearest(n, k, value).0;
        }
    }
}

/// A grid whose scales can be chosen too: each is that of some weights of one row.
pub trait ScaledGrid: Grid {
    /// Scales of a row.
    fn groups(&self) -> usize;

    /// The scale of the weights in column `k`, by its number in the row.
    fn group(&self, k: usize) -> usize;

    /// A scale as it is now.
    fn scale(&self, n: usize, group: usize) -> f32;

    /// The scale nearest to `wanted` that can be stored in the place of this one.
    fn storable(&self, n: usize, group: usize, wanted: f32) -> f32;

    /// As [`Grid::nearest`], with this scale instead.
    fn nearest_with(&self, scale: f32, n: usize, k: usize, value: f32) -> (u8, f32);

    /// The number that a code stands for with this scale.
    fn number(&self, scale: f32, n: usize, k: usize, code: u8) -> f32;
}

/// Codes, and the scales that they belong to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScaledCodes {
    /// One code for each weight, row-major.
    pub codes: Vec<u8>,
    /// `[rows, groups]`, all of them storable.
    pub scales: Vec<f32>,
}

impl ScaledCodes {
    /// A code for each weight, row-major, and scales of `[rows, groups]`.
    pub fn new(codes: Vec<u8>, scales: Vec<f32>) -> Self {
        Self { codes, scales }
    }

    /// Codes that belong to the scales that a grid has.
    pub fn on(grid: &dyn ScaledGrid, codes: Vec<u8>, rows: usize) -> Self {
        let rows =
            (0..rows).flat_map(|n| (0..grid.groups()).map(move |group| grid.scale(n, group)));
        Self {
            codes,
            scales: rows.collect(),
        }
    }
}

/// A way to choose codes on a grid.
pub trait CodeSearch: Sync {
    /// One code for each weight, row-major.
    fn codes(&self, weight: &Matrix, grid: &dyn Grid) -> Vec<u8>;

    /// The same search, if it chooses scales along with the codes. A scheme that can store them gives
    /// it the layer's own grid, not one that it has chosen for the weight.
    fn with_scales(&self) -> Option<&dyn ScaleSearch> {
        None
    }
}

/// A way to choose codes and scales.
pub trait ScaleSearch: Sync {
    /// Starts from the grid's scales.
    fn codes_and_scales(&self, weight: &Matrix, grid: &dyn ScaledGrid) -> ScaledCodes;
}

impl<S: CodeSearch + ?Sized> CodeSearch for &S {
    fn codes(&self, weight: &Matrix, grid: &dyn Grid) -> Vec<u8> {
        (**self).codes(weight, grid)
    }

    fn with_scales(&self) -> Option<&dyn ScaleSearch> {
        (**self).with_scales()
    }
}

/// Every weight goes to the code that the scheme gives it: what quantizing libraries do without
/// calibration data.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nearest;

impl CodeSearch for Nearest {
    fn codes(&self, weight: &Matrix, grid: &dyn Grid) -> Vec<u8> {
        let cols = weight.shape[1];
        let mut codes = vec![0; weight.values.len()];
        codes
            .par_chunks_exact_mut(cols)
            .zip(weight.values.par_chunks_exact(cols))
            .enumerate()
            .for_each(|(n, (codes, values))| grid.nearest_in_row(n, values, codes));
        codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiples of a step that grows from row to row.
    struct Steps;

    impl Grid for Steps {
        fn nearest(&self, n: usize, _k: usize, value: f32) -> (u8, f32) {
            let step = n as f32 + 1.0;
            let code = (value / step).round().clamp(0.0, 15.0);
            (code as u8, code * step)
        }
    }

    #[test]
    fn each_weight_gets_the_code_of_its_place() {
        let weight = Matrix::new(vec![0.4, 2.6, 99.0, 0.4, 2.6, 99.0], [2, 3]);
        assert_eq!(Nearest.codes(&weight, &Steps), [0, 3, 15, 0, 1, 15]);
    }
}
