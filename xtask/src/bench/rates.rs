//! What the machine can do: its rate of multiplications and of reading memory.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Sums that run beside each other, enough to hide the latency of two units.
const CHAINS: usize = 16;
/// Rounds of all chains in one measurement: some tenths of a second.
const ROUNDS: usize = 10_000_000;
/// Measurements, of which the best counts.
const TRIES: usize = 5;

/// Rates of all threads together.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
pub struct Rates {
    /// Floating-point operations a second in `f32`; a fused multiply-add is two.
    pub flops: f64,
    /// Bytes a second that can be read from memory.
    pub bytes: f64,
}

impl Rates {
    /// Measures this machine. `stream` is how many bytes are read: more than the caches hold.
    pub fn measure(stream: usize, rounds: usize) -> Self {
        let best = |rate: &dyn Fn() -> f64| (0..TRIES).map(|_| rate()).fold(0.0, f64::max);
        let data = vec![1.0f32; stream / 4];
        Self {
            flops: best(&|| flops(rounds)),
            bytes: best(&|| read(&data)),
        }
    }

    /// Enough rounds for a measurement, or a hundredth of it.
    pub fn rounds(quick: bool) -> usize {
        if quick { ROUNDS / 100 } else { ROUNDS }
    }
}

fn flops(rounds: usize) -> f64 {
    let arch = Arch::new();
    let began = Instant::now();
    let operations = rayon::broadcast(|_| arch.dispatch(MultiplyAdd { rounds }));
    operations.iter().sum::<f64>() / began.elapsed().as_secs_f64()
}

struct MultiplyAdd {
    rounds: usize,
}

impl WithSimd for MultiplyAdd {
    /// The operations that it did.
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let factor = simd.splat_f32s(black_box(0.999_9));
        let term = simd.splat_f32s(black_box(1e-4));
        let mut sums = [simd.splat_f32s(black_box(1.0)); CHAINS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        (2 * CHAINS * S::F32_LANES * self.rounds) as f64
    }
}

/// Sums of all values, each thread in a part of its own.
fn read(data: &[f32]) -> f64 {
    let arch = Arch::new();
    let part = data.len().div_ceil(rayon::current_num_threads()).max(1);
    let began = Instant::now();
    let sums: Vec<f32> = data
        .par_chunks(part)
        .map(|part| arch.dispatch(|| sum(part)))
        .collect();
    black_box(sums);
    size_of_val(data) as f64 / began.elapsed().as_secs_f64()
}

#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let (chunks, tail) = values.as_chunks::<64>();
    let mut lanes = [0.0f32; 64];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().chain(tail).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_all_values() {
        let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        assert_eq!(sum(&values), 499_500.0);
    }

    #[test]
    fn rates_are_those_of_a_computer() {
        let rates = Rates::measure(1 << 20, 10_000);
        assert!(rates.flops > 1e6 && rates.flops < 1e16, "{rates:?}");
        assert!(rates.bytes > 1e6 && rates.bytes < 1e15, "{rates:?}");
    }
}
