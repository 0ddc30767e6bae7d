//! The numbers that the weights of a row can be, with scales that are fixed or not.

use qoft_scheme::{Grid, ScaledGrid};

/// A grid, and whether its scales may change.
#[derive(Clone, Copy)]
pub(super) struct Lattice<'a> {
    grid: &'a dyn Grid,
    scaled: Option<&'a dyn ScaledGrid>,
}

/// A code, and the number that it stands for.
pub(super) type Number = (u8, f32);

impl<'a> Lattice<'a> {
    /// Scales stay as they are.
    pub fn fixed(grid: &'a dyn Grid) -> Self {
        Self { grid, scaled: None }
    }

    /// Scales may change.
    pub fn scaled(grid: &'a dyn ScaledGrid) -> Self {
        Self {
            grid,
            scaled: Some(grid),
        }
    }

    /// Scales of a row; none if they are fixed.
    pub fn groups(&self) -> usize {
        self.scaled.map_or(0, ScaledGrid::groups)
    }

    /// The features of each scale of a row.
    pub fn members(&self, width: usize) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.groups()];
        if let Some(grid) = self.scaled {
            (0..width).for_each(|k| members[grid.group(k)].push(k));
        }
        members
    }

    /// The scales that rows from `first` on have.
    pub fn scales(&self, first: usize, scales: &mut [f32]) {
        let Some(grid) = self.scaled else { return };
        let groups = grid.groups();
        for (at, scale) in scales.iter_mut().enumerate() {
            *scale = grid.scale(first + at / groups, at % groups);
        }
    }

    /// The scale nearest to `wanted` that can be stored.
    pub fn storable(&self, n: usize, group: usize, wanted: f32) -> Option<f32> {
        self.scaled.map(|grid| grid.storable(n, group, wanted))
    }

    /// What a weight of row `n` becomes whose row has these scales.
    pub fn nearest(&self, scales: &[f32], n: usize, k: usize, value: f32) -> Number {
        match self.scaled {
            None => self.grid.nearest(n, k, value),
            Some(grid) => grid.nearest_with(scales[grid.group(k)], n, k, value),
        }
    }

    /// What a code stands for with another scale.
    pub fn number(&self, scale: f32, n: usize, k: usize, code: u8) -> Option<f32> {
        self.scaled.map(|grid| grid.number(scale, n, k, code))
    }

    /// What each weight of rows of `width` weights becomes by itself.
    pub fn nearest_to_all(
        &self,
        width: usize,
        first: usize,
        scales: &[f32],
        values: &[f32],
    ) -> Vec<Number> {
        let groups = self.groups();
        let numbers = values.iter().enumerate().map(|(at, &value)| {
            let (row, k) = (at / width, at % width);
            self.nearest(&scales[row * groups..][..groups], first + row, k, value)
        });
        numbers.collect()
    }
}
