//! Blocks whose codes are numbers of levels.

use half::f16;

use super::search::{NOTHING, nearest};
use super::small::{extreme, inverse, pack};
use crate::block::{FP4_LEVELS, IQ4_LEVELS, half_power};

/// How far around the first scale others are tried.
const TRIES: i32 = 7;

pub fn mxfp4(values: &[f32], out: &mut [u8]) {
    let most = extreme(values).abs();
    let e = match most > 0.0 {
        true => (most.log2().floor() - 2.0 + 127.0) as u8,
        false => 0,
    };
    let scale = half_power(e);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(values) {
        let mut best = (scale * FP4_LEVELS[0] - value).abs();
        for (level, number) in FP4_LEVELS.iter().zip(0u8..).skip(1) {
            let error = (scale * level - value).abs();
            if error < best {
                (*code, best) = (number, error);
            }
        }
    }
    out[0] = e;
    pack(&codes, &mut out[1..]);
}

/// The number of the nearest level; of two that are as near, the upper one.
fn level(value: f32) -> u8 {
    let above = IQ4_LEVELS.iter().position(|level| value < *level);
    match above {
        Some(0) => 0,
        Some(upper) => {
            let (low, high) = (IQ4_LEVELS[upper - 1], IQ4_LEVELS[upper]);
            let number = if value - low < high - value {
                upper - 1
            } else {
                upper
            };
            number as u8
        }
        None => 15,
    }
}

/// The scale with the least squared error, weighted by the squares of the values.
fn scale_of(values: &[f32]) -> f32 {
    let max = extreme(values);
    if max.abs() < NOTHING {
        return 0.0;
    }
    let sums = |inverse: f32| {
        let (mut qx, mut q2) = (0.0f32, 0.0f32);
        for &x in values {
            let (q, w) = (IQ4_LEVELS[usize::from(level(inverse * x))], x * x);
            qx += w * q * x;
            q2 += w * q * q;
        }
        (qx, q2)
    };
    let (qx, q2) = sums(1.0 / (-max / IQ4_LEVELS[0]));
    let mut d = if q2 > 0.0 { qx / q2 } else { 0.0 };
    let mut best = d * qx;
    for step in -TRIES..=TRIES {
        let (qx, q2) = sums((step as f32 + IQ4_LEVELS[0]) / max);
        if q2 > 0.0 && qx * qx > best * q2 {
            d = qx / q2;
            best = d * qx;
        }
    }
    d
}

pub fn iq4_nl(values: &[f32], out: &mut [u8]) {
    let d = scale_of(values);
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    let inverse = inverse(d);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = level(inverse * value);
    }
    pack(&codes, &mut out[2..]);
}

pub fn iq4_xs(values: &[f32], out: &mut [u8]) {
    let mut scales = [0.0; 8];
    for (scale, values) in scales.iter_mut().zip(values.chunks_exact(32)) {
        *scale = scale_of(values);
    }
    let d = -extreme(&scales) / 32.0;
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    let by_d = inverse(d);
    let mut high = 0u16;
    out[4..8].fill(0);
    for (s, values) in values.chunks_exact(32).enumerate() {
        let l = nearest(by_d * scales[s]).clamp(-32, 31);
        let by_scale = inverse(d * l as f32);
        let mut codes = [0; 32];
        for (code, value) in codes.iter_mut().zip(values) {
            *code = level(by_scale * value);
        }
        let l = (l + 32) as u8;
        out[4 + s / 2] |= (l & 15) << (s % 2 * 4);
        high |= u16::from(l >> 4) << (2 * s);
        pack(&codes, &mut out[8 + 16 * s..][..16]);
    }
    out[2..4].copy_from_slice(&high.to_le_bytes());
}
