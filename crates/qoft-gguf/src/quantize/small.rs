//! Blocks of 32 values with one scale.

use half::f16;

/// Writes a number of 16 bits at byte `at`.
pub fn put(out: &mut [u8], at: usize, value: f32) {
    out[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// 1 / `value`, or 0.
pub fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}

/// The value of the largest magnitude, the first of several.
pub fn extreme(values: &[f32]) -> f32 {
    let larger = |most: f32, value: &f32| {
        if value.abs() > most.abs() {
            *value
        } else {
            most
        }
    };
    values.iter().fold(0.0, larger)
}

/// The smallest and the largest value.
fn range(values: &[f32]) -> [f32; 2] {
    values
        .iter()
        .fold([f32::MAX, f32::MIN], |[low, high], value| {
            [low.min(*value), high.max(*value)]
        })
}

/// Codes of 4 bits: those of the first half of the values are the low ones.
pub fn pack(codes: &[u8], out: &mut [u8]) {
    let (low, high) = codes.split_at(out.len());
    for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
        *out = low & 15 | high << 4;
    }
}

/// The fifth bits of codes.
fn fifth(codes: &[u8]) -> [u8; 4] {
    let bits = codes.iter().enumerate();
    let word = bits.fold(0u32, |word, (j, code)| word | u32::from(code >> 4 & 1) << j);
    word.to_le_bytes()
}

/// Codes around 0, of which the lowest stands for the extreme value.
fn signed(values: &[f32], half: f32, most: u8) -> (f32, [u8; 32]) {
    let d = extreme(values) / -half;
    let inverse = inverse(d);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = ((value * inverse + (half + 0.5)) as i8 as u8).min(most);
    }
    (d, codes)
}

/// Codes from the smallest value on.
fn unsigned(values: &[f32], most: u8) -> (f32, f32, [u8; 32]) {
    let [low, high] = range(values);
    let d = (high - low) / f32::from(most);
    let inverse = inverse(d);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (((value - low) * inverse + 0.5) as i8 as u8).min(most);
    }
    (d, low, codes)
}

pub fn q4_0(values: &[f32], out: &mut [u8]) {
    let (d, codes) = signed(values, 8.0, 15);
    put(out, 0, d);
    pack(&codes, &mut out[2..18]);
}

pub fn q4_1(values: &[f32], out: &mut [u8]) {
    let (d, low, codes) = unsigned(values, 15);
    put(out, 0, d);
    put(out, 2, low);
    pack(&codes, &mut out[4..20]);
}

pub fn q5_0(values: &[f32], out: &mut [u8]) {
    let (d, codes) = signed(values, 16.0, 31);
    put(out, 0, d);
    out[2..6].copy_from_slice(&fifth(&codes));
    pack(&codes, &mut out[6..22]);
}

pub fn q5_1(values: &[f32], out: &mut [u8]) {
    let (d, low, codes) = unsigned(values, 31);
    put(out, 0, d);
    put(out, 2, low);
    out[4..8].copy_from_slice(&fifth(&codes));
    pack(&codes, &mut out[8..24]);
}

pub fn q8_0(values: &[f32], out: &mut [u8]) {
    let d = extreme(values).abs() / 127.0;
    let inverse = inverse(d);
    put(out, 0, d);
    for (out, value) in out[2..].iter_mut().zip(values) {
        *out = (value * inverse).round() as i8 as u8;
    }
}
