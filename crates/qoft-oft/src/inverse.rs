//! Inverses of small matrices.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::lu::partial_pivoting::{factor, inverse};
use faer::{Mat, MatRef, Par};

/// The inverse of a row-major matrix of `size` rows, by an LU decomposition in `f64`; `None` if it is
/// singular.
pub(super) fn inverse_of(matrix: &[f32], size: usize) -> Option<Vec<f32>> {
    // One thread: blocks are small, and there are many.
    let par = Par::Seq;
    let matrix = MatRef::from_row_major_slice(matrix, size, size);
    let mut lu = Mat::from_fn(size, size, |i, j| f64::from(matrix[(i, j)]));
    let scratch = factor::lu_in_place_scratch::<usize, f64>(size, size, par, Default::default());
    let scratch = scratch.or(inverse::inverse_scratch::<usize, f64>(size, par));
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    let (mut forward, mut back) = (vec![0usize; size], vec![0; size]);
    let (_, permutation) = factor::lu_in_place(
        lu.as_mut(),
        &mut forward,
        &mut back,
        par,
        stack,
        Default::default(),
    );
    // False for what is not a number, too.
    if !(0..size).all(|i| lu[(i, i)].abs() >= 1e-12) {
        return None;
    }
    let mut found = Mat::zeros(size, size);
    inverse::inverse(
        found.as_mut(),
        lu.as_ref(),
        lu.as_ref(),
        permutation,
        par,
        stack,
    );
    let values = (0..size * size).map(|at| found[(at / size, at % size)] as f32);
    Some(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_times_its_inverse_is_one() {
        let size = 5;
        let value = |i: usize| ((i * 29 % 13) as f32 - 6.0) / 5.0;
        let matrix: Vec<f32> = (0..size * size).map(value).collect();
        let inverse = inverse_of(&matrix, size).unwrap();
        for row in 0..size {
            for col in 0..size {
                let products = (0..size).map(|k| matrix[row * size + k] * inverse[k * size + col]);
                let expected = if row == col { 1.0 } else { 0.0 };
                assert!((products.sum::<f32>() - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_singular_matrix_has_none() {
        assert_eq!(inverse_of(&[1.0, 2.0, 2.0, 4.0], 2), None);
    }
}
