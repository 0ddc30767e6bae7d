//! Groups of input features that do not follow each other, put in order.

use std::ops::Range;
use std::sync::Arc;

use super::GroupedWeight;
use crate::device::DeviceWeight;
use crate::groups::Groups;
use crate::scratch::with_scratch;
use crate::weight::{PackedWeight, WeightInfo};

/// A weight whose columns were sorted by group, so that its rows are made of runs.
#[derive(Debug)]
struct SortedWeight {
    /// The weight with sorted columns.
    weight: GroupedWeight,
    /// Where the column of each input feature is.
    places: Box<[u32]>,
    /// Columns of a group.
    size: usize,
}

impl GroupedWeight {
    /// The weight in the form in which it decodes fastest: [`Groups::Indexed`] are sorted if all
    /// have the same size, but the last one, which may be smaller.
    #[must_use]
    pub fn sorted(self) -> Arc<dyn PackedWeight> {
        let sorted = match &self.groups {
            Groups::Indexed { index, count } => places(index, *count),
            _ => None,
        };
        let Some((places, size)) = sorted else {
            return Arc::new(self);
        };
        let to: Vec<usize> = places.iter().map(|&place| place as usize).collect();
        let weight = Self {
            codes: self.codes.with_columns(self.shape, &to),
            groups: Groups::Blocks([1, size]),
            ..self
        };
        Arc::new(SortedWeight {
            weight,
            places,
            size,
        })
    }
}

/// Where each feature goes, and the size of the groups, if that is the same.
fn places(index: &[u32], count: usize) -> Option<(Box<[u32]>, usize)> {
    let size = index.iter().filter(|&&group| group == 0).count();
    let mut next: Vec<usize> = (0..count).map(|group| group * size).collect();
    let places = index.iter().map(|&group| {
        let next = &mut next[group as usize];
        *next += 1;
        (*next - 1) as u32
    });
    let places: Box<[u32]> = places.collect();
    let ends = (1..=count).map(|group| (group * size).min(index.len()));
    (size > 0 && next.into_iter().eq(ends)).then_some((places, size))
}

impl PackedWeight for SortedWeight {
    fn shape(&self) -> [usize; 2] {
        self.weight.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let k = self.weight.shape[1];
        let places = &self.places[cols.clone()];
        with_scratch(k, |sorted| {
            for (row, out) in rows.zip(out.chunks_exact_mut(cols.len())) {
                self.weight.decode_tile(row..row + 1, 0..k, sorted);
                for (out, &place) in out.iter_mut().zip(places) {
                    *out = sorted[place as usize];
                }
            }
        });
    }

    fn reordered(&self) -> Option<(&dyn PackedWeight, &[u32])> {
        Some((&self.weight, &self.places))
    }

    /// GPUs look for each weight's group anyway: they get the columns as they were.
    fn device_weight(&self) -> Option<DeviceWeight> {
        let [_, k] = self.weight.shape;
        let mut from = vec![0; k];
        let mut index = vec![0; k];
        for (feature, &place) in self.places.iter().enumerate() {
            from[place as usize] = feature;
            index[feature] = place / self.size as u32;
        }
        let weight = self.weight.clone();
        let count = k.div_ceil(self.size);
        let index = index.into();
        let weight = GroupedWeight {
            codes: weight.codes.with_columns(weight.shape, &from),
            groups: Groups::Indexed { index, count },
            ..weight
        };
        weight.words()
    }

    fn packed_bytes(&self) -> usize {
        self.weight.packed_bytes() + self.places.len() * size_of::<u32>()
    }

    fn info(&self) -> WeightInfo {
        self.weight.info()
    }
}
