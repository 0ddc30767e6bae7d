//! Against means and normal equations that are computed here.

use qoft_scheme::kernels::{CodebookShape, FloatFormat};

use super::*;
use crate::books::Books;
use crate::testing::{sums, weight};

#[test]
fn one_codebook_has_the_weighted_means() {
    let sizes = CodebookShape::new([1, 2], 1, 2, 1);
    let vectors = vec![9.0, 9.0, 8.0, 8.0, 7.0, 7.0, 6.0, 6.0];
    let mut sums = Sums {
        books: Books::from_vectors(sizes, FloatFormat::F32, vectors),
        codes: vec![0, 2, 2, 0, 2, 3],
        scales: vec![1.0, 2.0],
        scale_format: FloatFormat::F32,
    };
    let values = vec![1.0, 2.0, 0.0, 0.0, 5.0, 7.0, 12.0, 4.0, 20.0, 0.0, 3.0, 1.0];
    let shape = [2, 6];
    sums.refit(&Matrix::new(values, shape));
    // Vector 0: (1, 2) and 4 times (6, 2). Vector 1: nobody. Vector 2: (0, 0), (5, 7) and 4 times
    // (10, 0). Vector 3: (1.5, 0.5).
    let expected = [5.0, 2.0, 8.0, 8.0, 7.5, 7.0 / 6.0, 1.5, 0.5];
    for (found, expected) in sums.books.vectors().iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-6,
            "{:?}",
            sums.books.vectors()
        );
    }
}

#[test]
fn several_codebooks_come_to_the_least_squares() {
    for (og, count) in [(1, 1), (1, 2), (2, 3)] {
        let mut sums = sums(og, count, FloatFormat::F32);
        let weight = weight(&sums, 3);
        let before = sums.books.clone();
        for _ in 0..100 {
            sums.refit(&weight);
        }
        // At the least squares the derivative by each number of each vector is 0.
        let (length, each) = (sums.books.length, 40);
        let rest = sums.rest(&weight);
        let mut derivatives = vec![0.0; count * 8 * length];
        for (group, codes) in sums.codes.chunks(count).enumerate() {
            let scale = f64::from(sums.scales[group / each]);
            for (book, &code) in codes.iter().enumerate() {
                for at in 0..length {
                    derivatives[(book * 8 + code as usize) * length + at] +=
                        scale * scale * f64::from(rest[group * length + at]);
                }
            }
        }
        let largest = derivatives.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
        assert!(largest < 1e-3, "{og} {count}: {largest}");
        for book in 0..count {
            assert_eq!(sums.books.vector(book, 7), before.vector(book, 7));
            assert_ne!(sums.books.vector(book, 0), before.vector(book, 0));
        }
    }
}

#[test]
fn vectors_are_such_as_the_file_can_hold() {
    for format in [FloatFormat::F16, FloatFormat::Bf16] {
        let mut sums = sums(1, 2, format);
        let mut huge = weight(&sums, 4);
        sums.refit(&huge);
        let mut rounded = sums.books.vectors().to_vec();
        format.round(&mut rounded);
        assert_eq!(rounded, sums.books.vectors());
        huge.values.iter_mut().for_each(|v| *v *= 1e38);
        sums.refit(&huge);
        assert!(sums.books.vectors().iter().all(|v| v.is_finite()));
    }
}
