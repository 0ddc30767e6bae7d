//! Small floats with a scale for each group of a row.

use crate::grid::Grid;

/// The numbers `number · scale` of codes that stand for small floats, with a scale for each run of
/// input features within a row.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FloatGrid {
    /// Input features that share a scale; the last ones of a row may be fewer.
    pub group_size: usize,
    /// Groups in a row.
    pub count: usize,
    /// `[rows, count]`, as readers find them.
    pub scales: Vec<f32>,
    /// The code for a value that was divided by its scale.
    pub code: fn(f32) -> u8,
    /// The numbers of all codes.
    pub numbers: Box<[f32]>,
}

impl FloatGrid {
    /// The grid of these numbers, each of which `code` finds the code of, without any scales yet.
    pub fn new(numbers: impl Into<Box<[f32]>>, code: fn(f32) -> u8) -> Self {
        Self {
            group_size: usize::MAX,
            count: 1,
            scales: Vec::new(),
            code,
            numbers: numbers.into(),
        }
    }

    /// The same for rows of `width` input features, with a scale for each group of them in each row.
    ///
    /// # Panics
    /// If the scales are not those of whole rows.
    #[must_use]
    pub fn with_scales(self, scales: Vec<f32>, width: usize, group_size: usize) -> Self {
        let count = width.div_ceil(group_size);
        assert!(scales.len().is_multiple_of(count), "scales of whole rows");
        Self {
            group_size,
            count,
            scales,
            ..self
        }
    }

    /// The code of `value` in a group. Without any scale it is that of 0.
    #[inline(always)]
    fn code_of(&self, value: f32, scale: f32) -> u8 {
        let scaled = if scale == 0.0 { 0.0 } else { value / scale };
        (self.code)(scaled)
    }

    /// As [`Self::with_scales`], of scales that are bytes of a table.
    ///
    /// # Panics
    /// If the scales are not those of whole rows.
    #[must_use]
    pub fn with_coded_scales(
        self,
        bytes: &[u8],
        table: &[f32; 256],
        width: usize,
        group_size: usize,
    ) -> Self {
        let scales = bytes.iter().map(|&byte| table[usize::from(byte)]);
        self.with_scales(scales.collect(), width, group_size)
    }
}

impl Grid for FloatGrid {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let scale = self.scales[n * self.count + k / self.group_size];
        let code = self.code_of(value, scale);
        (code, self.numbers[usize::from(code)] * scale)
    }

    fn nearest_in_row(&self, n: usize, values: &[f32], codes: &mut [u8]) {
        let scales = &self.scales[n * self.count..];
        let groups = values.chunks(self.group_size);
        for ((values, codes), &scale) in groups.zip(codes.chunks_mut(self.group_size)).zip(scales) {
            for (code, &value) in codes.iter_mut().zip(values) {
                *code = self.code_of(value, scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use qoft_kernels::{FP4, Matrix, fp4_code};

    use super::*;
    use crate::grid::{CodeSearch, Nearest};

    #[test]
    fn each_group_has_its_scale() {
        let grid = FloatGrid::new(FP4, fp4_code).with_scales(vec![1.0, 2.0, 0.0, 0.5], 3, 2);
        let weight = Matrix::new(vec![3.0, -9.0, 3.0, 0.0, 1.0, -0.5], [2, 3]);
        let codes = Nearest.codes(&weight, &grid);
        assert_eq!(codes, [5, 15, 3, 0, 0, 10]);
        for (i, (&value, &code)) in weight.values.iter().zip(&codes).enumerate() {
            assert_eq!(grid.nearest(i / 3, i % 3, value).0, code);
        }
        assert_eq!(grid.nearest(0, 1, -9.0).1, -6.0);
    }
}
