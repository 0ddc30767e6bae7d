//! Tiles of every kind of group against the definition.

use std::sync::Arc;

use super::*;
use crate::error::WeightError;
use crate::floats::Floats;
use crate::ops::packed_matmul;

fn floats(values: impl IntoIterator<Item = f32>, format: FloatFormat) -> Floats {
    Floats::from_f32(&values.into_iter().collect::<Vec<_>>(), format).unwrap()
}

const SHAPE: [usize; 2] = [6, 11];

/// The group of weight `(n, k)`.
type GroupOf = fn(usize, usize) -> usize;

/// Every kind of group on a matrix of 6 × 11, with the group of each weight.
fn all_groups() -> Vec<(Groups, GroupOf)> {
    let index: Arc<[u32]> = [2, 0, 1, 1, 2, 0, 0, 0, 2, 1, 2].into();
    vec![
        (Groups::ROW, |n, _| n),
        (Groups::TENSOR, |_, _| 0),
        (Groups::Blocks([1, 4]), |n, k| n * 3 + k / 4),
        (Groups::Blocks([4, 3]), |n, k| n / 4 * 4 + k / 3),
        (Groups::Flat(7), |n, k| (n * 11 + k) / 7),
        (Groups::Interleaved(22), |n, k| (n * 11 + k) % 22),
        (Groups::Interleaved(3), |n, k| (n * 11 + k) % 3),
        (Groups::Indexed { index, count: 3 }, |n, k| {
            n * 3 + [2, 0, 1, 1, 2, 0, 0, 0, 2, 1, 2][k]
        }),
    ]
}

/// A kind of zero points that are floats.
type MakeZeros = fn(Floats) -> Zeros;

/// The definition, for unsigned codes with zero points, all of them rounded to `format`.
fn check(bits: u32, zeros: Option<MakeZeros>, factor: Option<f32>, format: FloatFormat) {
    let codes = Codes::pack(bits, (0..66u32).map(|i| (i * 37 + 11) as u8));
    for (groups, group) in all_groups() {
        let count = groups.count(SHAPE);
        let scale: Vec<f32> = (0..count).map(|g| (g as f32 + 1.0) * 0.37 - 2.0).collect();
        let zero: Vec<f32> = (0..count).map(|g| (g * 5 % 7) as f32 * 0.9).collect();
        let scales = Scales::Plain(floats(scale.clone(), FloatFormat::F32));
        let map = CodeMap::Unsigned;
        let mut parts = GroupedWeight::builder(SHAPE, codes.clone(), map, groups.clone(), scales)
            .rounding(format);
        let made = zeros.map(|make| make(floats(zero.clone(), FloatFormat::F32)));
        let added = matches!(made, Some(Zeros::Offsets(_)));
        if let Some(made) = made {
            parts = parts.zeros(made);
        }
        if let Some(factor) = factor {
            parts = parts.factor(factor);
        }
        let weight = parts.build("test").unwrap();
        let x: Vec<f32> = (0..SHAPE[1]).map(|k| (k % 5) as f32 - 2.0).collect();
        let round = |v: f32| {
            let mut v = [v];
            format.round(&mut v);
            v[0]
        };
        let value = |n: usize, k: usize| {
            let g = group(n, k);
            let number = f32::from(codes.get(n * SHAPE[1] + k));
            let number = match zeros {
                Some(_) if !added => round(number - zero[g]),
                _ => number,
            };
            let scaled = round(number * scale[g] * factor.unwrap_or(1.0));
            match added {
                true => round(scaled + zero[g]),
                false => scaled,
            }
        };
        for r0 in 0..SHAPE[0] {
            for c0 in 0..SHAPE[1] {
                let mut out = vec![f32::NAN; (SHAPE[0] - r0) * (SHAPE[1] - c0)];
                weight.decode_tile(r0..SHAPE[0], c0..SHAPE[1], &mut out);
                let expected: Vec<f32> = (r0..SHAPE[0])
                    .flat_map(|r| (c0..SHAPE[1]).map(move |c| value(r, c)))
                    .collect();
                assert_eq!(out, expected, "{groups:?}, tile from ({r0}, {c0})");
            }
        }
        let products = packed_matmul(&x, &weight, false);
        for (n, found) in products.into_iter().enumerate() {
            let expected: f32 = (0..SHAPE[1]).map(|k| value(n, k) * x[k]).sum();
            let close = (found - expected).abs() <= expected.abs().max(1.0) * 1e-4;
            assert!(
                close,
                "{bits} bits, {groups:?}, row {n}: {found} {expected}"
            );
        }
    }
}

#[test]
fn every_tile_equals_the_definition() {
    for bits in [1, 2, 3, 4, 5, 6, 8] {
        for format in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
            check(bits, Some(Zeros::Floats), None, format);
            check(bits, Some(Zeros::Offsets), None, format);
        }
        check(bits, None, Some(0.3), FloatFormat::F16);
        check(bits, Some(Zeros::Offsets), Some(0.3), FloatFormat::F16);
    }
}

#[test]
fn wrong_parts_are_refused() {
    let make = |codes: usize, scales: usize, groups| {
        let codes = Codes::pack(4, vec![0; 2 * codes]);
        let scales = Scales::Plain(floats(vec![1.0; scales], FloatFormat::F16));
        let parts = GroupedWeight::builder([4, 4], codes, CodeMap::Unsigned, groups, scales);
        parts.build("test")
    };
    assert!(make(8, 4, Groups::Flat(4)).is_ok());
    let error = make(7, 4, Groups::Flat(4)).unwrap_err();
    let expected = WeightError::Length {
        part: "codes",
        expected: 8,
        found: 7,
    };
    assert_eq!(error, expected);
    assert!(make(8, 3, Groups::Flat(4)).is_err());
    assert!(make(8, 4, Groups::Flat(0)).is_err());
    assert!(make(8, 3, Groups::Interleaved(3)).is_err());
    let index = |last: u32| Groups::Indexed {
        index: [0, 1, 1, last].into(),
        count: 2,
    };
    assert!(make(8, 8, index(0)).is_ok());
    let error = make(8, 8, index(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input feature 3 is in group 2, there are only 2"
    );
    let (codes, scales) = (
        Codes::pack(4, vec![0; 16]),
        floats([1.0; 4], FloatFormat::F16),
    );
    let scales = Scales::Plain(scales);
    let parts = GroupedWeight::builder([4, 4], codes, CodeMap::Unsigned, Groups::ROW, scales);
    let zeros = Zeros::Integers(vec![0; 3].into());
    assert!(parts.zeros(zeros).build("test").is_err());
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let infinite = Err(WeightError::NotFinite("weights"));
    let make = |codes: [u8; 4], map: CodeMap, scale: f32| {
        let scales = Scales::Plain(floats([scale], FloatFormat::F32));
        GroupedWeight::builder([2, 2], Codes::pack(8, codes), map, Groups::TENSOR, scales)
    };
    let built = |parts: GroupedBuilder| parts.build("test").map(|_| ());
    // A large scale is no error where no code makes too much of it.
    for (code, expected) in [(1, Ok(())), (200, infinite.clone())] {
        let parts = make([0, 1, code, 0], CodeMap::Unsigned, 3e38);
        assert_eq!(built(parts), expected);
        let parts = make([0, 1, code, 0], CodeMap::Unsigned, 60_000.0);
        assert_eq!(built(parts.clone()), Ok(()));
        assert_eq!(built(parts.rounding(FloatFormat::F16)), expected);
    }
    // What is infinite before the factor, and after it.
    let parts = make([0, 100, 0, 0], CodeMap::Int8, 1e37);
    assert_eq!(built(parts.clone().factor(1e-3)), infinite);
    assert_eq!(built(make([0, 100, 0, 0], CodeMap::Int8, 1e36)), Ok(()));
    let parts = make([0, 100, 0, 0], CodeMap::Int8, 1e36);
    assert_eq!(built(parts.factor(10.0)), infinite);
    // A zero point may do it alone, and so may an offset.
    let parts = make([1; 4], CodeMap::Unsigned, 3e38);
    let offsets = Zeros::Offsets(floats([3e38], FloatFormat::F32));
    assert_eq!(built(parts.zeros(offsets)), infinite);
    let parts = make([0; 4], CodeMap::Unsigned, 1e30);
    let zeros = Zeros::Floats(floats([-1e9], FloatFormat::F32));
    assert_eq!(built(parts.zeros(zeros)), infinite);
    let nested = Scales::Nested {
        codes: vec![0; 1].into(),
        table: Box::new([1e30; 256]),
        absmax: floats([1e30], FloatFormat::F32),
        block: 1,
        offset: 0.0,
    };
    let codes = Codes::pack(8, [0; 4]);
    let parts = GroupedWeight::builder([2, 2], codes, CodeMap::Int8, Groups::TENSOR, nested);
    assert_eq!(built(parts), Err(WeightError::NotFinite("scales")));
}

#[test]
fn sorted_weights_are_the_same() {
    let [n, k] = SHAPE;
    let x: Vec<f32> = (0..3 * n.max(k)).map(|i| (i % 7) as f32 - 3.0).collect();
    // Groups of 4, 4 and 3 features; those of different sizes stay as they are.
    for (index, can) in [
        ([2, 0, 1, 1, 2, 0, 0, 0, 2, 1, 1], true),
        ([2, 0, 1, 1, 2, 0, 0, 0, 2, 2, 2], false),
    ] {
        for bits in [1, 2, 3, 4, 5, 6, 8] {
            let index = index.into();
            let groups = Groups::Indexed { index, count: 3 };
            let scale = (0..3 * n).map(|g| (g as f32 + 1.0) * 0.37 - 2.0);
            let scales = Scales::Plain(floats(scale, FloatFormat::F32));
            let codes = Codes::pack(bits, (0..66u32).map(|i| (i * 37 + 11) as u8));
            let parts = GroupedWeight::builder(SHAPE, codes, CodeMap::Unsigned, groups, scales);
            let zeros = Zeros::Integers((0..3 * n).map(|g| (g * 5 % 7) as u8).collect());
            let parts = parts.zeros(zeros).rounding(FloatFormat::F16);
            let weight = parts.build("test").unwrap();
            let sorted = weight.clone().sorted();
            assert_eq!(sorted.reordered().is_some(), can);
            for (rows, cols) in [(0..n, 0..k), (1..3, 2..9), (4..5, 10..11)] {
                let mut tiles = [(); 2].map(|()| vec![f32::NAN; rows.len() * cols.len()]);
                let [expected, found] = &mut tiles;
                weight.decode_tile(rows.clone(), cols.clone(), expected);
                sorted.decode_tile(rows.clone(), cols.clone(), found);
                assert_eq!(found, expected, "{bits} bits");
            }
            for (rows, transpose) in [(1, false), (3, false), (1, true), (3, true)] {
                let x = &x[..rows * if transpose { n } else { k }];
                let expected = packed_matmul(x, &weight, transpose);
                let found = packed_matmul(x, &*sorted, transpose);
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-3, "{found} {expected}");
                }
            }
            let [words, expected] = [sorted.device_weight(), weight.device_weight()];
            let words = [words, expected].map(|device| device.map(|device| device.words));
            assert_eq!(words[0], words[1]);
            assert_eq!(words[0].is_some(), ![5, 6].contains(&bits));
        }
    }
}

/// Rows of 11 weights begin inside of bytes, and those of 128 are whole blocks of codes.
#[test]
fn the_order_of_half_bytes_changes_nothing() {
    let index = |k: usize| (0..k).map(|i| (i * 5 % 3) as u32).collect();
    for [n, k] in [SHAPE, [7, 128]] {
        let count = (n * k) as u32;
        let stream = Codes::pack(4, (0..count).map(|i| (i * i * 37 + i * 11) as u8));
        let halves = stream.bytes.iter().map(|byte| byte.rotate_left(4));
        let swapped = Codes::high_first(halves.collect::<Vec<u8>>());
        let table: [f32; 16] = std::array::from_fn(|i| (i * 7 % 16) as f32 * 0.3 - 2.0);
        for (map, groups) in [
            (CodeMap::Table16(Box::new(table)), Groups::Flat(64)),
            (CodeMap::Table16(Box::new(table)), Groups::Flat(7)),
            (CodeMap::Unsigned, Groups::Blocks([1, 64])),
            (CodeMap::Unsigned, Groups::Interleaved(k)),
            (
                CodeMap::Unsigned,
                Groups::Indexed {
                    index: index(k),
                    count: 3,
                },
            ),
        ] {
            let make = |codes: &Codes| {
                let groups = groups.clone();
                let scale = (0..groups.count([n, k])).map(|g| (g % 17) as f32 * 0.37 - 2.0);
                let scales = Scales::Plain(floats(scale, FloatFormat::F32));
                let map = map.clone();
                let parts = GroupedWeight::builder([n, k], codes.clone(), map, groups, scales);
                parts.build("test").unwrap()
            };
            let [expected, found] = [make(&stream), make(&swapped)];
            assert_eq!(expected.rows_in_memory().is_some(), k.is_multiple_of(2));
            assert_eq!(found.rows_in_memory().is_some(), k.is_multiple_of(2));
            for (rows, cols) in [(0..n, 0..k), (1..3, 2..9), (3..6, 3..k), (4..5, 10..11)] {
                let mut tiles = [(); 2].map(|()| vec![f32::NAN; rows.len() * cols.len()]);
                expected.decode_tile(rows.clone(), cols.clone(), &mut tiles[0]);
                found.decode_tile(rows.clone(), cols.clone(), &mut tiles[1]);
                assert_eq!(tiles[1], tiles[0], "{groups:?}");
            }
            let x: Vec<f32> = (0..3 * n.max(k))
                .map(|i| (i % 7) as f32 * 0.3 - 1.0)
                .collect();
            for (rows, transpose) in [(1, false), (3, false), (1, true), (3, true)] {
                let x = &x[..rows * if transpose { n } else { k }];
                let product = |weight| packed_matmul(x, weight, transpose);
                assert_eq!(product(&found), product(&expected), "{groups:?}");
                let sorted = [&found, &expected].map(|weight| weight.clone().sorted());
                let [found, expected] = sorted.map(|weight| packed_matmul(x, &*weight, transpose));
                assert_eq!(found, expected, "{groups:?}");
            }
        }
    }
}
