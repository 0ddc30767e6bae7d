//! Elementwise functions and sums that the compiler turns into vectors.
//!
//! All of it is plain arithmetic in a fixed order, so that every machine gets the same numbers.
//! The functions have to be inlined into a [`pulp::Arch::dispatch`] to use wide registers.

/// Sums that run beside each other.
const LANES: usize = 16;

/// Below this, `eˣ` is no normal number.
const LOWEST: f32 = -87.336_54;
/// Above this, `eˣ` is infinite.
const HIGHEST: f32 = 88.722_84;

/// `eˣ`, with a relative error of at most 2⁻²³ or so; 0 where it would be subnormal, and NaN for
/// NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // 1.5 · 2²³: adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with few bits so that its multiples are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > HIGHEST { HIGHEST } else { clamped };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN_2[0] - n * LN_2[1];
    // Cephes' polynomial for |r| ≤ ln 2 / 2.
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let mantissa = p * (r * r) + r + 1.0;
    // Half of the exponent twice: 2¹²⁸ alone is no number.
    let n = rounded.to_bits() as i32 - ROUND.to_bits() as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let value = mantissa * power(half) * power(n - half);
    let value = if x < LOWEST { 0.0 } else { value };
    if x > HIGHEST { f32::INFINITY } else { value }
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The largest value; −∞ for none. NaN are passed over.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, tail) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    let all = lanes.iter().chain(tail);
    all.fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

/// `Σ a·b`.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |a, b| a * b)
}

/// The sum of the terms that pairs of numbers give.
#[inline(always)]
pub(crate) fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += term(a[i], b[i]);
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(&a, &b)| term(a, b)).sum();
    lanes.iter().sum::<f32>() + tail
}

/// Replaces each value v by `e^(scale·v − shift)`; returns their sum.
#[inline(always)]
pub(crate) fn exp_sum(values: &mut [f32], scale: f32, shift: f32) -> f32 {
    let (chunks, tail) = values.as_chunks_mut::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = exp(*value * scale - shift);
            *lane += *value;
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for value in tail {
        *value = exp(*value * scale - shift);
        sum += *value;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::ops::testing::random;
    use super::*;

    #[test]
    fn the_exponential_is_that_of_the_standard_library() {
        let mut worst = 0.0f64;
        for i in 0..400_000 {
            let x = -87.3 + i as f32 * (176.0 / 400_000.0);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / exact - 1.0).abs());
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        assert_eq!((exp(-88.0), exp(f32::NEG_INFINITY)), (0.0, 0.0));
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(88.7).is_finite() && exp(f32::NAN).is_nan());
        assert_eq!((sigmoid(-200.0), sigmoid(200.0)), (0.0, 1.0));
    }

    #[test]
    fn sums_and_maxima_are_over_all_values() {
        for count in [0, 1, 15, 16, 17, 50] {
            let (a, b) = (random(count, 1), random(count, 2));
            let expected: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a * b)).sum();
            assert!((f64::from(dot(&a, &b)) - expected).abs() < 1e-5);
            let largest = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&a), largest);
            let mut e = a.clone();
            let sum = exp_sum(&mut e, 2.0, 0.5);
            let exact: f64 = a.iter().map(|&v| (2.0 * f64::from(v) - 0.5).exp()).sum();
            assert!((f64::from(sum) - exact).abs() < 1e-4 * (1.0 + exact));
            let sum_of_values: f32 = e.iter().sum();
            assert!((sum_of_values - sum).abs() < 1e-3);
        }
    }
}
