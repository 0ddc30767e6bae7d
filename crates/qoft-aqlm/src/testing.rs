//! Made-up layers for tests.

use qoft_scheme::kernels::{CodebookShape, FloatFormat, Matrix};

use crate::books::Books;
use crate::sums::Sums;

/// Numbers between -1 and 1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Random sums of groups of `og` × 2 weights for a matrix of 2 `og` groups of rows and 40 of columns.
pub fn sums(og: usize, num_codebooks: usize, format: FloatFormat) -> Sums {
    let sizes = CodebookShape::new([og, 2], num_codebooks, 3, 1);
    let mut vectors = numbers(num_codebooks * 8 * og * 2, 1);
    format.round(&mut vectors);
    let codes = numbers(6 * 40 * num_codebooks, 2);
    Sums {
        books: Books::from_vectors(sizes, format, vectors),
        // One vector is used by nobody.
        codes: codes.iter().map(|v| (v.abs() * 6.99) as u32).collect(),
        scales: vec![1.0, 0.5, -2.0, 0.0, 0.25, 3.0],
        scale_format: FloatFormat::F32,
    }
}

/// A random weight of their shape.
pub fn weight(sums: &Sums, seed: u64) -> Matrix {
    let shape = [6 * sums.books.sizes.out_group_size, 80];
    Matrix::new(numbers(shape[0] * shape[1], seed), shape)
}
