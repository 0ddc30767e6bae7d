//! Rates of the kernels, in FLOP a second.
#![allow(missing_docs)] // criterion makes functions without.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qoft_kernels::gemm::{Mat, matmul};
use qoft_kernels::ops::{CausalAttention, Rotate, packed_matmul};
use qoft_kernels::{
    CodeMap, Codes, DenseWeight, FloatFormat, Floats, GroupedWeight, Groups, HostOp, HostView,
    PackedWeight, Scales,
};

/// Values that look random and are always the same.
fn values(count: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + 104_729) % 2003) as f32 / 1001.5 - 1.0;
    (0..count).map(value).collect()
}

/// Weights of 4 or 8 bits with one scale for each 64 in a row.
fn grouped(shape: [usize; 2], bits: u32) -> GroupedWeight {
    let count = shape[0] * shape[1];
    let bytes: Vec<u8> = (0..count * bits as usize / 8)
        .map(|i| (i * 151 + 7) as u8)
        .collect();
    let map = match bits {
        4 => CodeMap::Table16(Box::new(std::array::from_fn(|i| i as f32 / 8.0 - 1.0))),
        _ => CodeMap::Int8,
    };
    let scales = Floats::from_f32(&values(count / 64), FloatFormat::F32).expect("finite");
    let codes = Codes::new(bytes, bits);
    let scales = Scales::Plain(scales);
    GroupedWeight::builder(shape, codes, map, Groups::Flat(64), scales)
        .build("bench")
        .expect("parts that fit")
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("matmul");
    for [m, k, n] in [[512, 576, 96], [512, 512, 128], [128, 64, 512]] {
        let (a, b, mut out) = (values(m * k), values(k * n), vec![0.0; m * n]);
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
        group.bench_function(format!("{m}x{k}x{n}"), |bench| {
            bench.iter(|| {
                matmul(
                    &mut out,
                    n,
                    Mat::new(&a, m, k, k),
                    Mat::new(&b, k, n, n),
                    false,
                )
            });
        });
        group.bench_function(format!("{m}x{k}x{n} transposed"), |bench| {
            let b = Mat::new(&b, n, k, k).t();
            bench.iter(|| matmul(&mut out, n, Mat::new(&a, m, k, k), b, false));
        });
    }
}

fn packed(c: &mut Criterion) {
    let mut group = c.benchmark_group("packed_matmul");
    for shape in [[576, 576], [1536, 576], [576, 1536], [4096, 4096]] {
        let [n, k] = shape;
        let weights: [(&str, Box<dyn PackedWeight>); 3] = [
            (
                "f32",
                Box::new(DenseWeight::from_f32(&values(n * k), shape)),
            ),
            ("int8", Box::new(grouped(shape, 8))),
            ("4-bit", Box::new(grouped(shape, 4))),
        ];
        for rows in [1, 16, 64, 512] {
            let x = values(rows * n.max(k));
            for (name, weight) in &weights {
                group.throughput(Throughput::Elements(2 * (rows * n * k) as u64));
                let id = format!("{name} {rows}x{k}x{n}");
                group.bench_function(&id, |bench| {
                    bench.iter(|| black_box(packed_matmul(&x[..rows * k], &**weight, false)));
                });
                group.bench_function(format!("{id} dx"), |bench| {
                    bench.iter(|| black_box(packed_matmul(&x[..rows * n], &**weight, true)));
                });
            }
        }
    }
}

fn rotations(c: &mut Criterion) {
    let mut group = c.benchmark_group("rotate");
    for width in [576, 1536] {
        let (x, blocks) = (values(512 * width), values(width * 32));
        let shapes = ([512, width], [width / 32, 32, 32]);
        let inputs = [
            HostView::new(&shapes.0, &x),
            HostView::new(&shapes.1, &blocks),
        ];
        group.throughput(Throughput::Elements((2 * 512 * width * 32) as u64));
        group.bench_function(format!("{width}"), |bench| {
            bench.iter(|| black_box(Rotate.forward(&inputs, true)));
        });
        group.throughput(Throughput::Elements((4 * 512 * width * 32) as u64));
        group.bench_function(format!("{width} backward"), |bench| {
            let grad = HostView::new(&shapes.0, &x);
            bench.iter(|| black_box(Rotate.backward(&inputs, &[], grad, &[true, true])));
        });
    }
}

fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    for (batch, time) in [(4, 128), (1, 1024)] {
        let shapes = ([batch, time, 9, 64], [batch, time, 3, 64]);
        let (q, k) = (values(batch * time * 9 * 64), values(batch * time * 3 * 64));
        let inputs = [
            HostView::new(&shapes.0, &q),
            HostView::new(&shapes.1, &k),
            HostView::new(&shapes.1, &k),
        ];
        let op = CausalAttention::new(0.125, None);
        // Half of the scores are masked.
        group.throughput(Throughput::Elements(
            (2 * batch * time * time * 9 * 64) as u64,
        ));
        group.bench_function(format!("{batch}x{time}"), |bench| {
            bench.iter(|| black_box(op.forward(&inputs, true)));
        });
        let saved = op.forward(&inputs, true).saved;
        group.throughput(Throughput::Elements(
            (5 * batch * time * time * 9 * 64) as u64,
        ));
        group.bench_function(format!("{batch}x{time} backward"), |bench| {
            let grad = HostView::new(&shapes.0, &q);
            bench.iter(|| black_box(op.backward(&inputs, &saved, grad, &[true; 3])));
        });
    }
}

criterion_group!(benches, products, packed, rotations, attention);
criterion_main!(benches);
