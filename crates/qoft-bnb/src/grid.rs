//! The numbers of the library's formats with their scales, as its CPU code chooses and rounds to them.

use qoft_scheme::kernels::{Matrix, count_less, whole};
use qoft_scheme::{CodeSearch, Grid, mean};
use rayon::prelude::*;

use crate::tables::ONE_127TH;

/// Absmax values that are smaller count as this.
const TINY: f32 = 1e-38;

/// A weight in 4 bits.
pub struct Quantized4Bit {
    /// One code for each weight, row-major, and one of a zero if that makes pairs of them.
    pub codes: Vec<u8>,
    /// The scales of the blocks.
    pub statistics: Statistics,
}

/// The scales of blocks as they are stored.
pub enum Statistics {
    /// The largest magnitudes.
    Plain(Vec<f32>),
    /// The largest magnitudes, quantized themselves.
    Nested {
        /// One code for each block.
        codes: Vec<u8>,
        /// The scale of each block of blocks.
        absmax: Vec<f32>,
        /// What was subtracted before.
        offset: f32,
    },
}

/// How 4-bit weights are scaled.
#[derive(Clone, Copy)]
pub struct BlockFormat<'a> {
    /// The numbers of the codes.
    pub table: &'a [f32; 16],
    /// Consecutive weights that share an absmax.
    pub blocksize: usize,
    /// The numbers of the codes of absmax values, and how many of these share one of their own.
    pub nested: Option<(&'a [f32; 256], usize)>,
}

impl BlockFormat<'_> {
    /// Quantizes a weight whose values are rounded to its dtype already.
    pub fn quantize(&self, weight: &Matrix, search: &dyn CodeSearch) -> Quantized4Bit {
        let blocks = weight.values.par_chunks(self.blocksize);
        let mut absmax: Vec<f32> = blocks.map(largest).collect();
        // The library divides by that of a block that is not full, and so keeps it from 0.
        if let Some(last) = absmax.last_mut()
            && !weight.values.len().is_multiple_of(self.blocksize)
        {
            *last = last.max(TINY);
        }
        let (scales, statistics) = match self.nested {
            None => (absmax.clone(), Statistics::Plain(absmax.clone())),
            Some((table, block)) => nested(&absmax, table, block),
        };
        let grid = Blocks {
            levels: Levels::new(self.table),
            table: *self.table,
            inverse: absmax.iter().map(|a| 1.0 / a.max(TINY)).collect(),
            absmax,
            scales,
            blocksize: self.blocksize,
            shape: weight.shape,
        };
        let mut codes = search.codes(weight, &grid);
        if !codes.len().is_multiple_of(2) {
            codes.push(grid.levels.nearest(0.0));
        }
        Quantized4Bit { codes, statistics }
    }
}

/// Double quantization: the absmax values as they come back, and as they are stored.
fn nested(absmax: &[f32], table: &[f32; 256], block: usize) -> (Vec<f32>, Statistics) {
    let levels = Levels::new(table);
    let offset = mean(absmax);
    let centered: Vec<f32> = absmax.iter().map(|a| a - offset).collect();
    let outer: Vec<f32> = centered.chunks(block).map(largest).collect();
    let mut codes = Vec::with_capacity(absmax.len());
    let mut scales = Vec::with_capacity(absmax.len());
    for (values, &outer) in centered.chunks(block).zip(&outer) {
        let inverse = 1.0 / outer;
        for &value in values {
            let code = match outer {
                0.0 => 0,
                _ => levels.nearest(on_steps(value * inverse)),
            };
            codes.push(code);
            scales.push(table[usize::from(code)] * outer + offset);
        }
    }
    let statistics = Statistics::Nested {
        codes,
        absmax: outer,
        offset,
    };
    (scales, statistics)
}

/// The library looks codes of 8 bits up by one of 65 536 numbers from −1 to 1, the one next to what
/// it wants to store.
fn on_steps(value: f32) -> f32 {
    const LAST: f32 = 65_535.0;
    let step = (value.clamp(-1.0, 1.0) + 1.0) * 0.5 * LAST + 0.5;
    -1.0 + 2.0 * step.floor() / LAST
}

/// A weight in int8: the codes, and the largest magnitude of each row.
pub fn int8(weight: &Matrix, search: &dyn CodeSearch) -> (Vec<u8>, Vec<f32>) {
    let rows = weight.values.par_chunks(weight.shape[1]);
    let grid = AbsmaxRows(rows.map(largest).collect());
    (search.codes(weight, &grid), grid.0)
}

fn largest(values: &[f32]) -> f32 {
    // Of magnitudes the bits have the same order as the numbers, and integers are compared several
    // at once.
    let bits = values.iter().map(|v| v.abs().to_bits());
    f32::from_bits(bits.fold(0, u32::max))
}

/// The entries of a table in the order of their values.
pub struct Levels<const N: usize> {
    codes: [u8; N],
    /// Between neighbours, and at last a number beyond all others.
    middles: [f32; N],
}

impl<const N: usize> Levels<N> {
    /// Of a table, whose places are the codes.
    pub fn new(table: &[f32; N]) -> Self {
        let value = |code: u8| table[usize::from(code)];
        let mut codes = std::array::from_fn(|code| code as u8);
        // Stable: of fp4's two zeros, code 0 comes before code 8.
        codes.sort_by(|&a, &b| value(a).total_cmp(&(value(b) + 0.0)));
        let mut middles = [f32::INFINITY; N];
        for (middle, pair) in middles.iter_mut().zip(codes.windows(2)) {
            *middle = (value(pair[0]) + value(pair[1])) / 2.0;
        }
        Self { codes, middles }
    }

    /// The code of the nearest entry; the lower one of two that are equally near.
    pub fn nearest(&self, t: f32) -> u8 {
        self.codes[self.middles.partition_point(|&middle| middle < t)]
    }

    /// The codes of the entries that are nearest to `scale` times each value.
    fn nearest_to_all(&self, values: &[f32], scale: f32, codes: &mut [u8]) {
        count_less(&self.middles, values, scale, codes);
        for code in codes {
            *code = self.codes[usize::from(*code) % N];
        }
    }
}

/// Blocks of the flattened weight.
struct Blocks {
    levels: Levels<16>,
    table: [f32; 16],
    absmax: Vec<f32>,
    inverse: Vec<f32>,
    /// The absmax values as they come back from their own quantization.
    scales: Vec<f32>,
    blocksize: usize,
    shape: [usize; 2],
}

impl Blocks {
    /// Whether a block has all its weights: the library divides by the absmax of one that has not,
    /// and multiplies by the inverse elsewhere.
    fn is_full(&self, block: usize) -> bool {
        (block + 1) * self.blocksize <= self.shape[0] * self.shape[1]
    }
}

impl Grid for Blocks {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let block = (n * self.shape[1] + k) / self.blocksize;
        let t = if self.is_full(block) {
            value * self.inverse[block]
        } else {
            value / self.absmax[block].max(TINY)
        };
        let code = self.levels.nearest(t);
        (code, self.table[usize::from(code)] * self.scales[block])
    }

    fn nearest_in_row(&self, n: usize, values: &[f32], codes: &mut [u8]) {
        let first = n * self.shape[1];
        let mut k = 0;
        while k < values.len() {
            let block = (first + k) / self.blocksize;
            let end = ((block + 1) * self.blocksize - first).min(values.len());
            if self.is_full(block) {
                let (values, codes) = (&values[k..end], &mut codes[k..end]);
                let scale = self.inverse[block];
                self.levels.nearest_to_all(values, scale, codes);
            } else {
                for k in k..end {
                    codes[k] = self.nearest(n, k, values[k]).0;
                }
            }
            k = end;
        }
    }
}

/// The largest magnitude of each row.
struct AbsmaxRows(Vec<f32>);

impl Grid for AbsmaxRows {
    fn nearest(&self, n: usize, _k: usize, value: f32) -> (u8, f32) {
        let largest = self.0[n];
        if largest == 0.0 {
            return (0, 0.0);
        }
        // torch divides a number by a tensor so: it multiplies with the reciprocal.
        let code = whole((value * (largest.recip() * 127.0)).clamp(-127.0, 127.0));
        (code as i8 as u8, code * largest * ONE_127TH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gets_the_codes_of_its_weights() {
        let table = std::array::from_fn(|i| ((i * 7 % 16) as f32 - 7.0) / 8.0);
        let shape = [3, 41];
        let absmax: Vec<f32> = (0..8).map(|i| 1.0 + i as f32 / 3.0).collect();
        let grid = Blocks {
            levels: Levels::new(&table),
            table,
            inverse: absmax.iter().map(|a| 1.0 / a).collect(),
            scales: absmax.clone(),
            absmax,
            blocksize: 16,
            shape,
        };
        for n in 0..shape[0] {
            let values: Vec<f32> = (0..41).map(|k| ((n * 41 + k) as f32).sin() * 2.0).collect();
            let mut codes = vec![0; values.len()];
            grid.nearest_in_row(n, &values, &mut codes);
            let each = values.iter().enumerate();
            let each: Vec<u8> = each.map(|(k, &v)| grid.nearest(n, k, v).0).collect();
            assert_eq!(codes, each);
        }
    }

    #[test]
    fn ties_go_to_the_lower_entry_and_positive_zeros_to_the_second_code() {
        let levels = Levels::new(&[0.0, 1.0, 0.0, -1.0]);
        let codes = [-0.5, -0.4, 0.0, 0.1, 0.5, 0.6].map(|t| levels.nearest(t));
        assert_eq!(codes, [3, 0, 0, 2, 2, 1]);
    }
}
