//! Every way to decode and to multiply against the definition.

use super::super::code;
use super::super::look_up::with_each;
use super::*;

fn bytes() -> Vec<u8> {
    (0..64u32).map(|i| (i * 151 + 7) as u8).collect()
}

/// Decodes a piece, and multiplies it with numbers.
#[derive(Clone)]
struct Both<'a>(Piece<'a>, &'a [f32]);

impl TableOp for Both<'_> {
    type Output = (Vec<f32>, f32);

    #[inline(always)]
    fn run<S: LookUp<V>, const V: usize>(self, simd: S) -> (Vec<f32>, f32) {
        let mut out = vec![f32::NAN; self.1.len()];
        Decode(self.0, &mut out).run(simd);
        (out, Dot(self.0, self.1).run(simd))
    }
}

/// The definition of a weight.
fn weight(codes: &SmallCodes, index: usize, scale: f32, zero: f32) -> f32 {
    let round = |number: f32| {
        let mut number = [number];
        codes.rounding.round(&mut number);
        number[0]
    };
    let code = code(codes.bytes, codes.bits, codes.order.place(index));
    let number = codes.numbers[usize::from(code)];
    let scaled = |number: f32| round(number * scale * codes.factor);
    match codes.zero_step {
        ZeroStep::Subtract => scaled(number - zero),
        ZeroStep::SubtractAndRound => scaled(round(number - zero)),
        ZeroStep::Add => round(scaled(number) + zero),
    }
}

fn check(codes: &SmallCodes, start: usize, runs: Runs, length: usize) {
    let x: Vec<f32> = (0..length)
        .map(|i| (i * 29 % 31) as f32 / 15.0 - 1.0)
        .collect();
    let piece = Piece { codes, start, runs };
    for (out, product) in with_each(&Both(piece, &x)) {
        let mut expected = 0.0;
        for (i, (&found, &x)) in out.iter().zip(&x).enumerate() {
            let group = match i.checked_sub(runs.first) {
                Some(behind) => 1 + behind / runs.size,
                None => 0,
            };
            let weight = weight(codes, start + i, runs.scales[group], runs.zeros[group]);
            assert_eq!(found, weight, "{codes:?}, {start} + {i}");
            expected += f64::from(found) * f64::from(x);
        }
        let close = (f64::from(product) - expected).abs() < 1e-4;
        assert!(close, "{product} {expected}");
    }
}

#[test]
fn runs_decode_every_code_with_its_table() {
    let bytes = bytes();
    let scales = [0.5, -1.3, 2.0, 1e-7, 0.1, 0.7, -1.0, 0.3];
    use NibbleOrder::{HighFirst, LowFirst};
    let widths = (1..=4).map(|bits| (bits, LowFirst));
    let widths = widths.chain([(4, HighFirst)]);
    for rounding in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
        for (bits, order) in widths.clone() {
            let numbers = std::array::from_fn(|i| (i % (1 << bits)) as f32 * 0.37 - 2.0);
            for (start, first, size) in [
                (0, 3, 30),
                (8, 8, 32),
                (5, 16, 27),
                (13, 24, 24),
                (0, 114, 64),
                (16, 50, 64),
            ] {
                let zeros = if start == 8 {
                    [0.0; 8]
                } else {
                    [0.0, 1.5, -0.3, 2.0, 7.0, 1.0, 0.5, 3.0]
                };
                let zero_step = match start {
                    8 => ZeroStep::Subtract,
                    13 | 16 => ZeroStep::Add,
                    _ => ZeroStep::SubtractAndRound,
                };
                let codes = SmallCodes {
                    bytes: &bytes,
                    bits,
                    order,
                    numbers: &numbers,
                    zero_step,
                    factor: 0.7,
                    rounding,
                };
                // A piece, and one up to the last byte of the stream.
                let left = bytes.len() * 8 / bits as usize - start;
                for length in [114, left.min(170)] {
                    let count = 1 + length.saturating_sub(first).div_ceil(size);
                    let runs = Runs {
                        first,
                        size,
                        scales: &scales[..count],
                        zeros: &zeros[..count],
                    };
                    check(&codes, start, runs, length.min(left));
                }
            }
        }
    }
}
