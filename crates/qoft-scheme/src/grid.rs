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

/// A way to choose codes on a grid.
pub trait CodeSearch: Sync {
    /// One code for each weight, row-major.
    fn codes(&self, weight: &Matrix, grid: &dyn Grid) -> Vec<u8>;
}

impl<S: CodeSearch + ?Sized> CodeSearch for &S {
    fn codes(&self, weight: &Matrix, grid: &dyn Grid) -> Vec<u8> {
        (**self).codes(weight, grid)
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
        let weight = Matrix {
            shape: [2, 3],
            values: vec![0.4, 2.6, 99.0, 0.4, 2.6, 99.0],
        };
        assert_eq!(Nearest.codes(&weight, &Steps), [0, 3, 15, 0, 1, 15]);
    }
}
