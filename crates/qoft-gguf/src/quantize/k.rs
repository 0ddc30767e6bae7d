//! Blocks of 256 values with scales of smaller groups.

use half::f16;

use super::search::{NOTHING, Tries, asymmetric, coordinate, nearest, symmetric};
use super::small::put;
use crate::block::scale_and_min;

fn rounded(value: f32) -> f32 {
    f16::from_f32(value).to_f32()
}

/// The largest of some numbers that are not negative, or 0.
fn largest(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |most, value| if *value > most { *value } else { most })
}

/// Codes of 2 bits, four in a byte.
fn pack_pairs(codes: &[u8], out: &mut [u8]) {
    for (h, codes) in codes.chunks_exact(128).enumerate() {
        for l in 0..32 {
            let parts = [0, 32, 64, 96].map(|at| codes[l + at]);
            out[32 * h + l] = parts[0] | parts[1] << 2 | parts[2] << 4 | parts[3] << 6;
        }
    }
}

pub fn q2(values: &[f32], out: &mut [u8]) {
    let tries = Tries {
        first: -0.5,
        steps: 15,
        absolute: true,
    };
    let (mut codes, mut scales, mut mins) = ([0; 256], [0.0; 16], [0.0; 16]);
    for (j, (x, codes)) in groups(values, &mut codes, 16).enumerate() {
        let weights: Vec<f32> = x.iter().map(|x| x.abs()).collect();
        (scales[j], mins[j]) = asymmetric(x, &weights, 3, tries, codes);
    }
    let (max_scale, max_min) = (largest(&scales), largest(&mins));
    let four_bits = |values: &[f32; 16], most: f32| match most > 0.0 {
        true => values.map(|value| nearest(15.0 / most * value) as u8),
        false => [0; 16],
    };
    let (packed, packed_mins) = (four_bits(&scales, max_scale), four_bits(&mins, max_min));
    let d = if max_scale > 0.0 {
        max_scale / 15.0
    } else {
        0.0
    };
    let dmin = if max_min > 0.0 { max_min / 15.0 } else { 0.0 };
    put(out, 80, d);
    put(out, 82, dmin);
    for (out, (scale, min)) in out.iter_mut().zip(packed.iter().zip(&packed_mins)) {
        *out = scale | min << 4;
    }
    for (j, (x, codes)) in groups(values, &mut codes, 16).enumerate() {
        let d = rounded(d) * f32::from(packed[j]);
        let min = rounded(dmin) * f32::from(packed_mins[j]);
        codes_from_min(x, d, min, 3, codes);
    }
    pack_pairs(&codes, &mut out[16..80]);
}

fn groups<'a>(
    values: &'a [f32],
    codes: &'a mut [u8; 256],
    size: usize,
) -> impl Iterator<Item = (&'a [f32], &'a mut [u8])> {
    values.chunks_exact(size).zip(codes.chunks_exact_mut(size))
}

/// The codes once scale and minimum are rounded; without a scale they stay.
fn codes_from_min(values: &[f32], d: f32, min: f32, most: i32, codes: &mut [u8]) {
    if d == 0.0 {
        return;
    }
    for (code, x) in codes.iter_mut().zip(values) {
        *code = nearest((x + min) / d).clamp(0, most) as u8;
    }
}

/// The codes, plus `most`, once the scale is rounded; without one they stay.
fn codes_around_0(values: &[f32], d: f32, most: i32, codes: &mut [u8]) {
    if d == 0.0 {
        return;
    }
    for (code, x) in codes.iter_mut().zip(values) {
        *code = (nearest(x / d).clamp(-most, most - 1) + most) as u8;
    }
}

/// The number of the largest magnitude, the first of several.
fn strongest(scales: &[f32]) -> f32 {
    super::small::extreme(scales)
}

pub fn q3(values: &[f32], out: &mut [u8]) {
    let (mut codes, mut scales) = ([0; 256], [0.0; 16]);
    for (j, (x, codes)) in groups(values, &mut codes, 16).enumerate() {
        scales[j] = coordinate(x, 4, codes);
    }
    let max = strongest(&scales);
    let inverse = if max == 0.0 { 0.0 } else { -32.0 / max };
    let d = if max == 0.0 { 0.0 } else { 1.0 / inverse };
    put(out, 108, d);
    let mut six = [0u8; 16];
    if max != 0.0 {
        six = scales.map(|scale| (nearest(inverse * scale).clamp(-32, 31) + 32) as u8);
    }
    let packed = &mut out[96..108];
    packed.fill(0);
    for (j, scale) in six.iter().enumerate() {
        packed[j % 8] |= (scale & 15) << (j / 8 * 4);
        packed[8 + j % 4] |= scale >> 4 << (j / 4 * 2);
    }
    for (j, (x, codes)) in groups(values, &mut codes, 16).enumerate() {
        let d = rounded(d) * (f32::from(six[j]) - 32.0);
        codes_around_0(x, d, 4, codes);
    }
    let high = &mut out[..32];
    high.fill(0);
    for (j, code) in codes.iter_mut().enumerate() {
        high[j % 32] |= (*code >> 2) << (j / 32);
        *code &= 3;
    }
    pack_pairs(&codes, &mut out[32..96]);
}

/// Scales, minima and codes of `Q4_K` and `Q5_K`.
fn with_mins(values: &[f32], most: i32, tries: Tries, out: &mut [u8]) -> [u8; 256] {
    let (mut codes, mut scales, mut mins) = ([0; 256], [0.0; 8], [0.0; 8]);
    for (j, (x, codes)) in groups(values, &mut codes, 32).enumerate() {
        let mut squares = 0.0f32;
        x.iter().for_each(|x| squares += x * x);
        let average = (squares / 32.0).sqrt();
        let weights: Vec<f32> = x.iter().map(|x| average + x.abs()).collect();
        (scales[j], mins[j]) = asymmetric(x, &weights, most, tries, codes);
    }
    let (max_scale, max_min) = (largest(&scales), largest(&mins));
    let inverse = |most: f32| if most > 0.0 { 63.0 / most } else { 0.0 };
    let six = |inverse: f32, value: f32| (nearest(inverse * value) as u8).min(63);
    let (scale_inverse, min_inverse) = (inverse(max_scale), inverse(max_min));
    let packed = &mut out[4..16];
    packed.fill(0);
    for j in 0..8 {
        let scale = six(scale_inverse, scales[j]);
        let min = six(min_inverse, mins[j]);
        if j < 4 {
            packed[j] = scale;
            packed[j + 4] = min;
        } else {
            packed[j + 4] = scale & 15 | min << 4;
            packed[j - 4] |= scale >> 4 << 6;
            packed[j] |= min >> 4 << 6;
        }
    }
    let (d, dmin) = (max_scale / 63.0, max_min / 63.0);
    put(out, 0, d);
    put(out, 2, dmin);
    for (j, (x, codes)) in groups(values, &mut codes, 32).enumerate() {
        let (scale, min) = scale_and_min(&out[4..16], j);
        let d = rounded(d) * f32::from(scale);
        codes_from_min(x, d, rounded(dmin) * f32::from(min), most, codes);
    }
    codes
}

/// Codes of 4 bits: of 64 the first 32 are the low ones.
fn pack_runs(codes: &[u8; 256], out: &mut [u8]) {
    for (codes, out) in codes.chunks_exact(64).zip(out.chunks_exact_mut(32)) {
        super::small::pack(codes, out);
    }
}

pub fn q4(values: &[f32], out: &mut [u8]) {
    let tries = Tries {
        first: -1.0,
        steps: 20,
        absolute: false,
    };
    let codes = with_mins(values, 15, tries, out);
    pack_runs(&codes, &mut out[16..144]);
}

pub fn q5(values: &[f32], out: &mut [u8]) {
    let tries = Tries {
        first: -0.5,
        steps: 15,
        absolute: false,
    };
    let codes = with_mins(values, 31, tries, out);
    let high = &mut out[16..48];
    high.fill(0);
    for (j, code) in codes.iter().enumerate() {
        high[j % 32] |= (code >> 4) << (j / 32);
    }
    pack_runs(&codes, &mut out[48..176]);
}

pub fn q6(values: &[f32], out: &mut [u8]) {
    let (mut codes, mut scales) = ([0; 256], [0.0; 16]);
    for (j, (x, codes)) in groups(values, &mut codes, 16).enumerate() {
        scales[j] = symmetric(x, 32, codes);
    }
    let max = strongest(&scales);
    if max.abs() < NOTHING {
        out.fill(0);
        return;
    }
    let inverse = -128.0 / max;
    let d = 1.0 / inverse;
    put(out, 208, d);
    for (j, (x, codes)) in groups(values, &mut codes, 16).enumerate() {
        let scale = nearest(inverse * scales[j]).min(127) as i8;
        out[192 + j] = scale as u8;
        codes_around_0(x, rounded(d) * f32::from(scale), 32, codes);
    }
    for (h, codes) in codes.chunks_exact(128).enumerate() {
        for l in 0..32 {
            let parts = [0, 32, 64, 96].map(|at| codes[l + at]);
            out[64 * h + l] = parts[0] & 15 | parts[2] << 4;
            out[64 * h + 32 + l] = parts[1] & 15 | parts[3] << 4;
            let high = parts.map(|part| part >> 4);
            out[128 + 32 * h + l] = high[0] | high[1] << 2 | high[2] << 4 | high[3] << 6;
        }
    }
}
