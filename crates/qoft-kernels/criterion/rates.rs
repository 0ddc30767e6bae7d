//! Products with packed weights, as shares of the machine's rate of fused multiply-adds.
//!
//! Arguments: what the lines to measure have to contain, all of it, as in `nf4 m=512. dx`. The best of several
//! runs counts. `nf4>bf16` is a weight of `nf4` whose products are computed in bfloat16: where the machine
//! does so itself, its shares can be larger than 100 %.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use pulp::{Simd, WithSimd};
use qoft_kernels::ops::{GroupedMatmul, packed_matmul};
use qoft_kernels::{
    CodeMap, Codes, ComputeDtype, DenseWeight, FloatFormat, Floats, GroupedWeight, Groups, HostOp,
    HostView, PackedWeight, Scales, Zeros, computed_in,
};

/// How long each line is measured.
const SECONDS: f64 = 0.25;
/// Experts of a mixture: more weights than any cache holds.
const EXPERTS: usize = 32;

/// So many rounds of multiply-adds in registers; how many operations they were.
struct Fma(usize);

impl WithSimd for Fma {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let factor = simd.splat_f32s(black_box(0.999_9));
        let term = simd.splat_f32s(black_box(1e-4));
        let mut sums = [simd.splat_f32s(black_box(1.0)); 16];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        (2 * 16 * S::F32_LANES * self.0) as f64
    }
}

/// Operations a second of all threads together.
fn fma_rate(rounds: usize) -> f64 {
    let arch = pulp::Arch::new();
    let began = Instant::now();
    let operations = rayon::broadcast(|_| arch.dispatch(Fma(rounds)));
    operations.iter().sum::<f64>() / began.elapsed().as_secs_f64()
}

/// Values that look random and are always the same.
fn values(count: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + 104_729) % 2003) as f32 / 1001.5 - 1.0;
    (0..count).map(value).collect()
}

/// A weight in one of the formats, with products in a dtype.
fn weight(kind: &str, shape: [usize; 2]) -> Arc<dyn PackedWeight> {
    match kind.strip_suffix(">bf16") {
        Some(kind) => computed_in(stored(kind, shape), ComputeDtype::Bf16),
        None => stored(kind, shape),
    }
}

/// A weight in one of the formats.
fn stored(kind: &str, shape: [usize; 2]) -> Arc<dyn PackedWeight> {
    let count = shape[0] * shape[1];
    let bytes = |n: usize| (0..n).map(|i| (i * 151 + 7) as u8).collect::<Vec<u8>>();
    let scales = |n| Scales::Plain(Floats::from_f32(&values(n), FloatFormat::F32).expect("finite"));
    let built = match kind {
        "f32" => return Arc::new(DenseWeight::from_f32(&values(count), shape)),
        "bf16" => {
            let bytes = FloatFormat::Bf16.to_bytes(&values(count));
            return Arc::new(DenseWeight::new(bytes.into(), FloatFormat::Bf16, shape));
        }
        "nf4" => {
            let map = CodeMap::Table16(Box::new(std::array::from_fn(|i| i as f32 / 8.0 - 1.0)));
            let codes = Codes::high_first(bytes(count / 2));
            GroupedWeight::builder(shape, codes, map, Groups::Flat(64), scales(count / 64))
        }
        "int8" => {
            let codes = Codes::new(bytes(count), 8);
            GroupedWeight::builder(shape, codes, CodeMap::Int8, Groups::ROW, scales(shape[0]))
        }
        _ => {
            let codes = Codes::new(bytes(count / 2), 4);
            let groups = shape[0] * shape[1].div_ceil(128);
            let zeros = Zeros::Integers(vec![8; groups].into());
            let groups_of = Groups::Blocks([1, 128]);
            GroupedWeight::builder(shape, codes, CodeMap::Unsigned, groups_of, scales(groups))
                .zeros(zeros)
        }
    };
    Arc::new(built.build("bench").expect("parts that fit"))
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|w| w != "--bench")
        .collect();
    let mut rate = 0f64;
    for _ in 0..5 {
        rate = rate.max(fma_rate(3_000_000));
    }
    println!("rate of multiply-adds: {:.1} GFLOP/s", rate / 1e9);
    let mut measure = |line: &str, flops: usize, product: &dyn Fn()| {
        let began = Instant::now();
        let (mut best, mut runs) = (f64::MAX, 0);
        while runs < 3 || began.elapsed().as_secs_f64() < SECONDS {
            let began = Instant::now();
            product();
            best = best.min(began.elapsed().as_secs_f64());
            runs += 1;
        }
        rate = rate.max(fma_rate(100_000));
        let share = 100.0 * flops as f64 / best / rate;
        println!("{line:32} {share:5.1} %  {:8.1} µs", best * 1e6);
    };
    let lines = |kind: &str, rows: usize, [n, k]: [usize; 2], many: &str| {
        let line = |way: &str| format!("{kind} m={rows}. {n}x{k}{many} {way}.");
        let wanted = |line: &String| words.iter().all(|word| line.contains(word.as_str()));
        [line("y"), line("dx")].map(|line| Some(line).filter(wanted))
    };
    let kinds = [
        "f32",
        "nf4",
        "int8",
        "gptq4",
        "bf16",
        "f32>bf16",
        "nf4>bf16",
        "int8>bf16",
        "gptq4>bf16",
        "bf16>bf16",
    ];
    let shapes = [
        [576, 576],
        [192, 576],
        [1536, 576],
        [576, 1536],
        [512, 512],
        [256, 512],
        [4096, 4096],
        [11008, 4096],
    ];
    for shape in shapes {
        for kind in kinds {
            let mut made = None;
            for rows in [1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 512, 4096] {
                let ways = lines(kind, rows, shape, "");
                for (transpose, line) in [false, true].into_iter().zip(ways) {
                    let (Some(line), [n, k]) = (line, shape) else {
                        continue;
                    };
                    let weight = made.get_or_insert_with(|| weight(kind, shape));
                    let x = values(rows * if transpose { n } else { k });
                    measure(&line, 2 * rows * n * k, &|| {
                        black_box(packed_matmul(&x, &**weight, transpose));
                    });
                }
            }
        }
    }
    for shape in [[256, 512], [512, 256], [768, 2048], [2048, 768]] {
        for kind in kinds {
            for rows in [4, 16, 32, 64, 128] {
                let [y, dx] = lines(kind, rows, shape, &format!(" ({EXPERTS})"));
                if y.is_none() && dx.is_none() {
                    continue;
                }
                let group = |_| (weight(kind, shape), rows);
                let op = GroupedMatmul::new((0..EXPERTS).map(group).collect());
                let (all, [n, k]) = (rows * EXPERTS, shape);
                let (x, grad) = (values(all * k), values(all * n));
                let [of_x, of_grad] = [[all, k], [all, n]];
                let inputs = HostView::new(&of_x, &x);
                let grad = HostView::new(&of_grad, &grad);
                if let Some(line) = y {
                    measure(&line, 2 * all * n * k, &|| {
                        black_box(op.forward(&[inputs], false));
                    });
                }
                if let Some(line) = dx {
                    measure(&line, 2 * all * n * k, &|| {
                        black_box(op.backward(&[inputs], &[], grad, &[true]));
                    });
                }
            }
        }
    }
    println!("rate of multiply-adds: {:.1} GFLOP/s", rate / 1e9);
}
