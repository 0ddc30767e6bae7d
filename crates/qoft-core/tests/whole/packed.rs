//! Products with weights of every representation, on the device that `QOFT_DEVICE` names.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use qoft_core::kernels::{
    CodeMap, CodebookShape, CodebookWeight, Codes, DenseWeight, FloatFormat, Floats,
    GroupedBuilder, GroupedWeight, Groups, Scales, WeightInfo, Zeros,
};
use qoft_core::{Matrix, PackedWeight, default_device, ops};

/// Numbers between −1 and 1 without a pattern.
fn numbers(count: usize) -> Vec<f32> {
    let number = |i: usize| (i.wrapping_mul(0x9E37_79B9) >> 8 & 0xffff) as f32;
    (0..count).map(|i| number(i + 1) / 32_768.0 - 1.0).collect()
}

fn floats(count: usize, format: FloatFormat) -> Floats {
    Floats::from_f32(&numbers(count), format).unwrap()
}

/// `x · Wᵀ`, and the gradient of `x`, which is `dy · W`.
fn products(weight: &Arc<dyn PackedWeight>, x: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
    let ([n, k], device) = (weight.shape(), default_device().unwrap());
    let rows = x.len() / k;
    let x = TensorData::new(x.to_vec(), [rows, k]);
    let x = Tensor::<2>::from_data(x, &device.clone().autodiff()).require_grad();
    let dy = Tensor::<2>::from_data(TensorData::new(dy.to_vec(), [rows, n]), &device);
    let y = ops::packed_matmul(x.clone(), weight);
    let gradients = (y.clone() * dy).sum().backward();
    let dx = x.grad(&gradients).expect("a gradient");
    [y.inner(), dx].map(|tensor| tensor.into_data().try_into_vec().unwrap())
}

/// Rows of the identity pick weights out: they are exact, for many rows and for one.
fn check(weight: impl PackedWeight + 'static) {
    let dense = Matrix::decode(&weight);
    let [n, k] = dense.shape;
    let info = weight.info();
    let weight: Arc<dyn PackedWeight> = Arc::new(weight);
    let one = |size: usize, at: usize| (0..size).map(move |i| f32::from(u8::from(i == at % size)));
    for rows in [n.max(k), 1] {
        let x: Vec<f32> = (0..rows).flat_map(|row| one(k, row + 3)).collect();
        let dy: Vec<f32> = (0..rows).flat_map(|row| one(n, row)).collect();
        let [y, dx] = products(&weight, &x, &dy);
        for (row, y) in y.chunks_exact(n).enumerate() {
            let expected: Vec<f32> = dense.rows().map(|w| w[(row + 3) % k]).collect();
            assert_eq!(y, expected, "{info:?}: column {}", (row + 3) % k);
        }
        for (row, dx) in dx.chunks_exact(k).enumerate() {
            assert_eq!(dx, dense.row(row % n), "{info:?}: row {}", row % n);
        }
    }
}

fn grouped(shape: [usize; 2], bits: u32, map: CodeMap, groups: Groups) -> GroupedBuilder {
    let elements = shape[0] * shape[1];
    let codes = (0..elements).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 12) as u8);
    let scales = Scales::Plain(floats(groups.count(shape), FloatFormat::Bf16));
    GroupedWeight::builder(shape, Codes::pack(bits, codes), map, groups, scales)
}

fn integers(count: usize) -> Zeros {
    Zeros::Integers((0..count).map(|i| (i * 3 % 8) as u8).collect())
}

fn indexed(k: usize) -> Groups {
    Groups::Indexed {
        index: (0..k as u32).map(|k| k * 5 % 3).collect(),
        count: 3,
    }
}

#[test]
fn codes_of_every_width() {
    for bits in [1, 2, 3, 4, 8] {
        for shape in [[9, 24], [7, 21]] {
            let groups = Groups::Blocks([1, 8]);
            let weight = grouped(shape, bits, CodeMap::Unsigned, groups);
            check(weight.build("test").unwrap());
        }
    }
}

#[test]
fn groups_of_every_shape() {
    for groups in [
        Groups::ROW,
        Groups::TENSOR,
        Groups::Blocks([2, 5]),
        Groups::Blocks([4, 16]),
        Groups::Flat(16),
        Groups::Flat(7),
        Groups::Interleaved(12),
        indexed(24),
    ] {
        let count = groups.count([9, 24]);
        let weight = grouped([9, 24], 4, CodeMap::Unsigned, groups);
        check(weight.zeros(integers(count)).build("test").unwrap());
    }
}

#[test]
fn maps_zeros_factors_and_roundings() {
    let shape = [9, 24];
    let table16 = CodeMap::Table16(Box::new(std::array::from_fn(|i| i as f32 / 7.3 - 1.0)));
    let table256 = CodeMap::Table256(Box::new(std::array::from_fn(|i| i as f32 / 99.0)));
    for (bits, map) in [(8, CodeMap::Int8), (4, table16), (8, table256)] {
        let weight = grouped(shape, bits, map, Groups::Flat(8)).factor(1.0 / 127.0);
        check(weight.build("test").unwrap());
    }
    // Values of all sizes: some are subnormal in f16, and some too small for it.
    let scales = |format| {
        let values: Vec<f32> = (0..9).map(|i| 1.37 * 16f32.powi(i - 7)).collect();
        Scales::Plain(Floats::from_f32(&values, format).unwrap())
    };
    for rounding in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
        let codes = Codes::pack(8, (0..9 * 24).map(|i| (i * 7) as u8));
        let scales = scales(FloatFormat::F32);
        let map = CodeMap::Unsigned;
        let weight = GroupedWeight::builder(shape, codes, map, Groups::ROW, scales);
        let zeros = Zeros::Floats(floats(9, FloatFormat::F16));
        let weight = weight.rounding(rounding).zeros(zeros);
        check(weight.build("test").unwrap());
    }
}

#[test]
fn nested_scales() {
    for format in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
        let scales = Scales::Nested {
            codes: (0..27).map(|i| (i * 9) as u8).collect(),
            table: Box::new(std::array::from_fn(|i| i as f32 / 255.0)),
            absmax: floats(7, format),
            block: 4,
            offset: 0.3,
        };
        let (codes, groups) = (
            Codes::pack(4, (0..9 * 24).map(|i| i as u8)),
            Groups::Flat(8),
        );
        let weight = GroupedWeight::builder([9, 24], codes, CodeMap::Unsigned, groups, scales);
        check(weight.build("test").unwrap());
    }
}

#[test]
fn codebooks() {
    for (code_bytes, nbits, in_group_size) in [(1, 3, 8), (2, 9, 4), (4, 5, 3), (8, 5, 16)] {
        let sizes = CodebookShape::new([2, in_group_size], 2, nbits, code_bytes);
        let codes: Vec<u8> = (0..4 * 3 * 2 * code_bytes)
            .map(|i| (i * 37) as u8)
            .collect();
        let books = floats((2 << nbits) * 2 * in_group_size, FloatFormat::F16);
        let scales = floats(4, FloatFormat::Bf16);
        let shape = [8, 3 * in_group_size];
        check(CodebookWeight::new(shape, sizes, codes.into(), books, scales).unwrap());
    }
}

#[test]
fn dense_formats() {
    for format in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
        let bytes = format.to_bytes(&numbers(9 * 21));
        check(DenseWeight::new(bytes.into(), format, [9, 21]));
    }
}

/// More rows than a dimension of a GPU's grid has.
#[test]
fn many_outputs() {
    let weight = DenseWeight::from_f32(&numbers(70_000 * 3), [70_000, 3]);
    let dense = Matrix::decode(&weight);
    let weight: Arc<dyn PackedWeight> = Arc::new(weight);
    let [y, _] = products(&weight, &[0.0, 1.0, 0.0], &vec![0.0; 70_000]);
    assert!(y.iter().copied().eq(dense.rows().map(|row| row[1])));
}

/// A weight that only says how its tiles are decoded, as one from elsewhere may.
#[derive(Debug)]
struct Foreign([usize; 2]);

impl PackedWeight for Foreign {
    fn shape(&self) -> [usize; 2] {
        self.0
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let at = rows.flat_map(|row| cols.clone().map(move |col| row * 7 + col * 3));
        for (out, at) in out.iter_mut().zip(at) {
            *out = (at % 31) as f32 - 15.0;
        }
    }

    fn packed_bytes(&self) -> usize {
        0
    }

    fn info(&self) -> WeightInfo {
        WeightInfo::quantized(1, None, "foreign")
    }
}

#[test]
fn weights_without_kernels_are_decoded_in_tiles() {
    check(Foreign([9, 24]));
    // Several tiles.
    let (n, k) = (1500, 4096);
    let foreign: Arc<dyn PackedWeight> = Arc::new(Foreign([n, k]));
    let dense: Arc<dyn PackedWeight> = {
        let values = Matrix::decode(&*foreign).values;
        Arc::new(DenseWeight::from_f32(&values, [n, k]))
    };
    let (x, dy) = (numbers(2 * k), numbers(2 * n));
    let [found, expected] = [foreign, dense].map(|weight| products(&weight, &x, &dy).concat());
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() < 0.05, "{a} {b}");
    }
}
