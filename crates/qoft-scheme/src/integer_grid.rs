//! Unsigned integers with a scale and a zero point for each group of a row, and finding both
//! without calibration data.

mod fit;

use std::sync::Arc;

use qoft_kernels::{FloatFormat, Matrix, whole, wide};
use rayon::prelude::*;

use crate::grid::{CodeSearch, Grid, ScaledGrid};
use fit::Fit;

/// The numbers `(code − zero point) · scale`, with a scale and a zero point for each group of
/// input features within a row.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IntegerGrid {
    /// The group of each input feature.
    pub index: Arc<[u32]>,
    /// Groups in a row.
    pub count: usize,
    /// The largest code; the smallest is 0.
    pub largest: u8,
    /// The format of the scales. Products are rounded to it too.
    pub format: FloatFormat,
    /// `[rows, count]`
    pub scales: Vec<f32>,
    /// `[rows, count]`
    pub zeros: Vec<u8>,
}

impl IntegerGrid {
    /// A grid of codes of `bits` bits for `rows` rows with `count` groups each, in which input feature
    /// `k` is in group `index[k]`. All scales and zero points are 0; [`Self::fit`] finds others.
    ///
    /// # Panics
    /// If a code has not 1 to 8 bits.
    pub fn new(
        rows: usize,
        index: impl Into<Arc<[u32]>>,
        count: usize,
        bits: usize,
        format: FloatFormat,
    ) -> Self {
        assert!((1..=8).contains(&bits), "codes of 1 to 8 bits");
        Self {
            index: index.into(),
            count,
            largest: u8::MAX >> (8 - bits),
            format,
            scales: vec![0.0; rows * count],
            zeros: vec![0; rows * count],
        }
    }

    /// The same with other scales and zero points.
    ///
    /// # Panics
    /// If there is not one of each for every group.
    #[must_use]
    pub fn starting_from(self, scales: Vec<f32>, zeros: Vec<u8>) -> Self {
        let lengths = [scales.len(), zeros.len()];
        assert_eq!(lengths, [self.scales.len(); 2], "scales and zero points");
        Self {
            scales,
            zeros,
            ..self
        }
    }

    /// Replaces scales and zero points by others wherever these bring a group of `weight` closer
    /// to its numbers, by the sum of the squared differences. With `symmetric` all zero points
    /// become the middle of the codes.
    ///
    /// Libraries take the range from a group's smallest to its largest weight. Here this is one of
    /// several ranges, since it often pays to cut a few large weights off. Another one is what the
    /// grid has before: a weight that is on the grid already stays as it is.
    pub fn fit(&mut self, weight: &Matrix, symmetric: bool) {
        let fit = Fit {
            largest: f32::from(self.largest),
            symmetric,
            format: self.format,
        };
        // Features sorted by their groups; the sort is stable.
        let mut order: Vec<usize> = (0..self.index.len()).collect();
        order.sort_by_key(|&feature| self.index[feature]);
        let groups: Vec<&[usize]> = order
            .chunk_by(|&a, &b| self.index[a] == self.index[b])
            .collect();
        let (index, count) = (&self.index, self.count);
        weight
            .values
            .par_chunks_exact(weight.shape[1])
            .zip(self.scales.par_chunks_exact_mut(count))
            .zip(self.zeros.par_chunks_exact_mut(count))
            .for_each_init(Vec::new, |values, ((row, scales), zeros)| {
                for features in &groups {
                    values.clear();
                    values.extend(features.iter().map(|&feature| row[feature]));
                    let group = index[features[0]] as usize;
                    let found = wide!(fit.group(values, scales[group], zeros[group]));
                    (scales[group], zeros[group]) = (found.scale, found.zero as u8);
                }
            });
    }
}

/// The groups of `features` input features that follow each other, so many in each; the last one may
/// have fewer.
pub fn groups_in_order(features: usize, group_size: usize) -> Vec<u32> {
    (0..features).map(|k| (k / group_size) as u32).collect()
}

impl IntegerGrid {
    /// The codes of a changed weight, with scales that the search chooses or that are
    /// [fitted](Self::fit) before.
    pub fn requantize(
        &mut self,
        weight: &Matrix,
        symmetric: bool,
        search: &dyn CodeSearch,
    ) -> Vec<u8> {
        self.fit(weight, symmetric);
        let Some(search) = search.with_scales() else {
            return search.codes(weight, self);
        };
        let found = search.codes_and_scales(weight, self);
        self.scales = found.scales;
        found.codes
    }

    /// The place of a weight's scale.
    #[inline(always)]
    fn place(&self, n: usize, k: usize) -> usize {
        n * self.count + self.index[k] as usize
    }

    /// The nearest code for weight `(n, k)`.
    #[inline(always)]
    fn code(&self, scale: f32, n: usize, k: usize, value: f32) -> u8 {
        let zero = self.zeros[self.place(n, k)];
        // Weights that are smaller than all scales of the format.
        if scale == 0.0 {
            return zero;
        }
        let zero = f32::from(zero);
        let steps = (value / scale).clamp(-zero, f32::from(self.largest) - zero);
        (whole(steps) + zero) as u8
    }
}

impl Grid for IntegerGrid {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        self.nearest_with(self.scales[self.place(n, k)], n, k, value)
    }

    fn nearest_in_row(&self, n: usize, values: &[f32], codes: &mut [u8]) {
        for (k, (code, &value)) in codes.iter_mut().zip(values).enumerate() {
            *code = self.code(self.scales[self.place(n, k)], n, k, value);
        }
    }
}

impl ScaledGrid for IntegerGrid {
    fn groups(&self) -> usize {
        self.count
    }

    fn group(&self, k: usize) -> usize {
        self.index[k] as usize
    }

    fn scale(&self, n: usize, group: usize) -> f32 {
        self.scales[n * self.count + group]
    }

    fn storable(&self, n: usize, group: usize, wanted: f32) -> f32 {
        let mut scale = [wanted];
        self.format.round(&mut scale);
        // Not one that turns codes over, nor one that the format does not have.
        match scale[0] > 0.0 && scale[0].is_finite() {
            true => scale[0],
            false => self.scale(n, group),
        }
    }

    fn nearest_with(&self, scale: f32, n: usize, k: usize, value: f32) -> (u8, f32) {
        let code = self.code(scale, n, k, value);
        (code, self.number(scale, n, k, code))
    }

    fn number(&self, scale: f32, n: usize, k: usize, code: u8) -> f32 {
        let zero = self.zeros[self.place(n, k)];
        let mut number = [(f32::from(code) - f32::from(zero)) * scale];
        self.format.round(&mut number);
        number[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919 % 1013) as f32 / 506.0 - 1.0).powi(3) * 0.2)
            .collect()
    }

    fn grid(rows: usize, index: Vec<u32>, count: usize, bits: usize) -> IntegerGrid {
        IntegerGrid::new(rows, index, count, bits, FloatFormat::F16)
    }

    fn error(grid: &IntegerGrid, weight: &Matrix) -> f32 {
        let cols = weight.shape[1];
        let values = weight.values.iter().enumerate();
        let errors = values.map(|(i, &v)| v - grid.nearest(i / cols, i % cols, v).1);
        errors.map(|e| e * e).sum()
    }

    #[test]
    fn a_fitted_grid_is_better_than_the_plain_range() {
        let weight = Matrix::new(values(256), [4, 64]);
        for bits in [2, 3, 4, 8] {
            for symmetric in [false, true] {
                let index = (0..64).map(|k| k % 2).collect();
                let mut fitted = grid(4, index, 2, bits);
                let largest = fitted.largest;
                let mut plain = fitted.clone();
                fitted.fit(&weight, symmetric);
                for row in 0..4 {
                    for group in 0..2 {
                        let members = weight.row(row).iter().skip(group).step_by(2);
                        let low = members.clone().fold(0.0f32, |a, b| a.min(*b));
                        let high = members.fold(0.0f32, |a, b| a.max(*b));
                        let range = if symmetric {
                            2.0 * high.max(-low)
                        } else {
                            high - low
                        };
                        let mut scale = [range / f32::from(largest)];
                        FloatFormat::F16.round(&mut scale);
                        let zero = if symmetric {
                            (f32::from(largest) + 1.0) / 2.0
                        } else {
                            (-low / scale[0]).round()
                        };
                        plain.scales[row * 2 + group] = scale[0];
                        plain.zeros[row * 2 + group] = zero as u8;
                    }
                }
                let (fitted, plain) = (error(&fitted, &weight), error(&plain, &weight));
                assert!(fitted < plain, "{largest} {symmetric}: {fitted} {plain}");
            }
        }
    }

    #[test]
    fn weights_on_the_grid_stay_there() {
        let mut before = grid(1, vec![0; 16], 1, 4);
        (before.scales[0], before.zeros[0]) = (0.125, 3);
        let weight = Matrix::new(
            (0..16).map(|code| (code % 7) as f32 * 0.125).collect(),
            [1, 16],
        );
        let mut after = before.clone();
        after.fit(&weight, false);
        assert_eq!((after.scales[0], after.zeros[0]), (0.125, 3));
        assert_eq!(error(&after, &weight), 0.0);
    }

    #[test]
    fn so_do_weights_that_were_rounded() {
        let mut before = IntegerGrid::new(1, vec![0; 32], 1, 8, FloatFormat::Bf16);
        (before.scales[0], before.zeros[0]) = (0.012_695_313, 131);
        let mut values: Vec<f32> = (0..32)
            .map(|i| (i * 8 - 131) as f32 * 0.012_695_313)
            .collect();
        FloatFormat::Bf16.round(&mut values);
        let weight = Matrix::new(values, [1, 32]);
        let mut after = before.clone();
        after.fit(&weight, false);
        assert_eq!((after.scales[0], after.zeros[0]), (0.012_695_313, 131));
        assert_eq!(error(&after, &weight), 0.0);
    }

    #[test]
    fn weights_below_all_scales_become_zero() {
        let weight = Matrix::new(vec![1e-12, -1e-12, 0.0, 0.0], [1, 4]);
        for symmetric in [false, true] {
            let mut tiny = grid(1, vec![0; 4], 1, 4);
            tiny.fit(&weight, symmetric);
            assert_eq!(tiny.nearest(0, 0, 1e-12).1, 0.0);
            assert_eq!(tiny.zeros[0], if symmetric { 8 } else { 0 });
        }
    }
}
