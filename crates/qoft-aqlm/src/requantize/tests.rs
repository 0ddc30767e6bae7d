//! What is chosen, against all choices and what readers find.

use qoft_scheme::kernels::{CodebookWeight, FloatFormat, Floats};

use super::*;
use crate::testing::{sums, weight};

const FORMATS: [FloatFormat; 3] = [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16];

/// The weight that readers find in the tensors of some sums.
fn read(sums: &Sums, shape: [usize; 2]) -> Matrix {
    let floats = |bytes: Vec<u8>, format| Floats::new(bytes.into(), format).unwrap();
    let weight = CodebookWeight::new(
        shape,
        sums.books.sizes,
        sums.code_bytes().into(),
        floats(sums.book_bytes(), sums.books.format),
        floats(sums.scale_bytes(), sums.scale_format),
    );
    Matrix::decode(&weight.unwrap())
}

fn error(weight: &Matrix, written: &Matrix) -> f64 {
    let pairs = weight.values.iter().zip(&written.values);
    pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[test]
fn fitted_codebooks_are_nearer_to_the_weight() {
    for (og, count) in [(1, 1), (1, 2), (2, 3)] {
        for format in FORMATS {
            let mut start = sums(og, count, format);
            start.scale_format = format;
            let weight = weight(&start, 5);
            let written = |codebooks| {
                let mut sums = fitted(start.clone(), &weight, codebooks);
                let written = read(&sums, weight.shape);
                let left = error(&weight, &written);
                // What a search thinks that it left is what readers find.
                let again = sums.search(&weight);
                assert!(again <= left * (1.0 + 1e-6), "{left} {again}");
                (left, sums)
            };
            let (kept, same) = written(Codebooks::Keep);
            let (refit, _) = written(Codebooks::Refit);
            assert!(
                refit < 0.95 * kept,
                "{og} {count} {format:?}: {refit} {kept}"
            );
            assert_eq!(same.books.vectors(), start.books.vectors());
        }
    }
}

#[test]
fn no_round_is_worse_than_the_one_before() {
    let mut next = sums(1, 2, FloatFormat::F16);
    let weight = weight(&next, 6);
    let mut before = next.search(&weight);
    for _ in 0..20 {
        next.refit(&weight);
        let after = next.search(&weight);
        assert!(after <= before * (1.0 + 1e-6), "{before} {after}");
        assert!((error(&weight, &read(&next, weight.shape)) - after).abs() < 1e-6 * after);
        before = after;
    }
}

#[test]
fn one_code_is_that_of_the_nearest_vector() {
    let mut sums = sums(2, 1, FloatFormat::F32);
    let weight = weight(&sums, 7);
    let scales = sums.scales.clone();
    sums.search(&weight);
    let mut target = Vec::new();
    for (group, &code) in sums.codes.iter().enumerate() {
        let (out, at) = (group / 40, group % 40);
        let rows = &weight.values[out * 160..][..160];
        target.clear();
        crate::search::gather(&sums.books, rows, 80, at, scales[out], &mut target);
        let distance = |code| -> f32 {
            let pairs = target.iter().zip(sums.books.vector(0, code));
            pairs.map(|(a, b)| (a - b) * (a - b)).sum()
        };
        let least = (0..8).map(distance).fold(f32::INFINITY, f32::min);
        assert!(distance(code) <= least * (1.0 + 1e-5));
    }
}

#[test]
fn a_weight_that_has_codes_keeps_them() {
    for format in FORMATS {
        let start = sums(1, 2, format);
        let weight = read(&start, [6, 80]);
        let written = fitted(start.clone(), &weight, Codebooks::Refit);
        assert_eq!(read(&written, [6, 80]), weight);
        assert_eq!(written.books.vectors(), start.books.vectors());
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let start = sums(2, 3, FloatFormat::F16);
    let weight = weight(&start, 8);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let fitted = || fitted(start.clone(), &weight, Codebooks::Refit);
        let sums = pool.build().unwrap().install(fitted);
        (sums.code_bytes(), sums.book_bytes(), sums.scale_bytes())
    };
    assert_eq!(with(1), with(3));
}
