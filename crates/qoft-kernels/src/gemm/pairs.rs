//! Operands in bfloat16: numbers are rounded to it in pairs that follow each other along the inner dimension.

use super::pack::NC;
use super::turn::turn_into;
use super::unit::{Pair, Unit, multiplies_pairs};
use super::{Mat, MatMut};
use crate::floats::bf16_bits;
use crate::scratch::with_scratch;
use crate::wide;

/// As [`pack`](super::pack::pack), with pairs of rows as the rows of the panel.
pub(super) fn pack_pairs(b: Mat, [row, kc]: [usize; 2], [col, nc]: [usize; 2], panel: &mut [Pair]) {
    if b.col_stride == 1 {
        let at_once = multiplies_pairs();
        let (panel, _) = panel.as_chunks_mut::<NC>();
        let row_of = |r: usize| &b.data[(row + r) * b.row_stride + col..][..nc];
        for (i, line) in panel[..kc.div_ceil(2)].iter_mut().enumerate() {
            let first = row_of(2 * i);
            match 2 * i + 1 < kc {
                true => beside(first, row_of(2 * i + 1), line, at_once),
                false => beside(first, &[0.0; NC], line, at_once),
            }
        }
        return;
    }
    let turned = b.t().rows_of(col..col + nc).columns(row, kc);
    let units = kc.div_ceil(2);
    with_scratch(nc * units, |near| {
        let pairs: &mut [Pair] = bytemuck::cast_slice_mut(near);
        to_pairs(turned, pairs);
        // Pairs are turned over as other numbers of 32 bits are.
        let near = Mat::new(near, nc, units, units);
        let panel = MatMut::new(bytemuck::cast_slice_mut(panel), units, nc, NC);
        // SAFETY: the panel is borrowed exclusively.
        unsafe { turn_into(near, panel) }
    });
}

/// Rows of pairs of the numbers that follow each other in rows, one after another; if there is an odd one,
/// it is beside a zero. Columns of `from` lie next to each other.
pub(crate) fn to_pairs(from: Mat, pairs: &mut [Pair]) {
    let at_once = multiplies_pairs();
    let units = from.cols.div_ceil(Pair::NUMBERS);
    let rows = from.data.chunks(from.row_stride.max(1)).take(from.rows);
    for (row, pairs) in rows.zip(pairs.chunks_exact_mut(units.max(1))) {
        in_order(&row[..from.cols], pairs, at_once);
    }
}

/// Pairs of numbers of two rows. With `at_once`, the machine has the instructions of [`at_once`].
fn beside(first: &[f32], second: &[f32], pairs: &mut [Pair; NC], at_once: bool) {
    #[cfg(target_arch = "x86_64")]
    if let (true, Ok(first), Ok(second)) = (at_once, first.try_into(), second.try_into()) {
        // SAFETY: the machine has the instructions.
        return unsafe { at_once::beside(first, second, pairs) };
    }
    let _ = at_once;
    wide!({
        for ((pair, &first), &second) in pairs.iter_mut().zip(first).zip(second) {
            *pair = bf16_bits(first) | bf16_bits(second) << 16;
        }
    });
}

/// Pairs of the numbers of a row.
fn in_order(row: &[f32], pairs: &mut [Pair], at_once: bool) {
    #[cfg(target_arch = "x86_64")]
    let done = match at_once {
        // SAFETY: the machine has the instructions.
        true => unsafe { at_once::in_order(row, pairs) },
        false => 0,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let done = usize::from(at_once) * 0;
    let (row, last) = row[2 * done..].as_chunks::<2>();
    let pairs = &mut pairs[done..];
    wide!({
        for (pair, &[first, second]) in pairs.iter_mut().zip(row) {
            *pair = bf16_bits(first) | bf16_bits(second) << 16;
        }
    });
    if let ([last], [.., pair]) = (last, pairs) {
        *pair = bf16_bits(*last);
    }
}

/// Two vectors at once, by `vcvtne2ps2bf16`, which rounds in the same way but numbers below the smallest normal
/// one, which become 0.
#[cfg(target_arch = "x86_64")]
mod at_once {
    use std::arch::x86_64::{
        __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_permutexvar_epi16, _mm512_storeu_si512,
    };
    use std::mem::transmute;

    use super::{NC, Pair};

    /// The numbers of a vector that two vectors of `f32` become.
    const WIDE: usize = 32;
    /// Where the numbers of pairs are, if those of one vector stand before those of the other.
    const TURNS: [u16; WIDE] = {
        let mut turns = [0; WIDE];
        let mut i = 0;
        while i < WIDE {
            turns[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        turns
    };

    /// As [`super::beside`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn beside(first: &[f32; NC], second: &[f32; NC], pairs: &mut [Pair; NC]) {
        let [first, second] = [first, second].map(|row| row.as_chunks::<16>().0);
        let (pairs, _) = pairs.as_chunks_mut::<16>();
        for ((first, second), pairs) in first.iter().zip(second).zip(pairs) {
            // SAFETY: 16 numbers are read and 16 pairs written; all bits are values of these vectors.
            unsafe {
                let turns = _mm512_loadu_si512(TURNS.as_ptr().cast());
                let [first, second] = [first, second].map(|v| _mm512_loadu_ps(v.as_ptr()));
                let numbers: __m512i = transmute(_mm512_cvtne2ps_pbh(second, first));
                let numbers = _mm512_permutexvar_epi16(turns, numbers);
                _mm512_storeu_si512(pairs.as_mut_ptr().cast(), numbers);
            }
        }
    }

    /// As [`super::in_order`], as many pairs as whole vectors have; how many.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn in_order(row: &[f32], pairs: &mut [Pair]) -> usize {
        let (row, _) = row.as_chunks::<WIDE>();
        let (pairs, _) = pairs.as_chunks_mut::<16>();
        for (numbers, pairs) in row.iter().zip(pairs) {
            // SAFETY: 32 numbers are read and 16 pairs written; all bits are values of these vectors.
            unsafe {
                let first = _mm512_loadu_ps(numbers.as_ptr());
                let second = _mm512_loadu_ps(numbers[16..].as_ptr());
                let numbers: __m512i = transmute(_mm512_cvtne2ps_pbh(second, first));
                _mm512_storeu_si512(pairs.as_mut_ptr().cast(), numbers);
            }
        }
        16 * row.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::random;

    /// Numbers of all magnitudes, ties among them, and what is no number.
    #[test]
    fn all_ways_round_as_half_does() {
        let of = |(i, v): (usize, f32)| v * 2f32.powi(i as i32 % 160 - 80);
        let mut values: Vec<f32> = random(2 * NC * 90, 3)
            .into_iter()
            .enumerate()
            .map(of)
            .collect();
        let tie = |i: u32| f32::from_bits(0x3f80_8000 + (i << 16));
        values.extend((0..2 * NC as u32).map(tie));
        values[7] = f32::INFINITY;
        values[8] = f32::NAN;
        values[9] = -0.0;
        values[10] = f32::MAX;
        let bits = |v: f32| u32::from(half::bf16::from_f32(v).to_bits());
        for at_once in [false, multiplies_pairs()] {
            for length in [values.len(), 77, 33, 2, 1] {
                let row = &values[..length];
                let mut pairs = vec![0; length.div_ceil(2)];
                in_order(row, &mut pairs, at_once);
                for (i, pair) in pairs.iter().enumerate() {
                    let second = row.get(2 * i + 1).map_or(0, |&v| bits(v));
                    assert_eq!(*pair, bits(row[2 * i]) | second << 16, "{length} {i}");
                }
            }
            for nc in [NC, 31, 1] {
                let (first, second) = (&values[..nc], &values[NC..NC + nc]);
                let mut pairs = [0; NC];
                beside(first, second, &mut pairs, at_once);
                for i in 0..nc {
                    assert_eq!(pairs[i], bits(first[i]) | bits(second[i]) << 16);
                }
            }
        }
    }
}
