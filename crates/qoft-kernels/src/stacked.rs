//! Several weights as one, for products with the same activations.

use std::ops::Range;
use std::sync::Arc;

use crate::row::InputRow;
use crate::weight::{PackedWeight, WeightInfo};

/// Weights with the same input features, one below the other.
#[derive(Debug)]
pub struct StackedWeight {
    parts: StackedRows,
    /// The same, where all parts want their input features in the same other order.
    sorted: Option<StackedRows>,
}

impl StackedWeight {
    /// `None` if there is no weight, their numbers of input features differ, or they want these in
    /// different orders ([`PackedWeight::reordered`]).
    pub fn new(weights: Vec<Arc<dyn PackedWeight>>) -> Option<Self> {
        let first = weights.first()?;
        let (k, places) = (first.shape()[1], places(first));
        let fits =
            |part: &Arc<dyn PackedWeight>| part.shape()[1] == k && self::places(part) == places;
        if !weights.iter().all(fits) {
            return None;
        }
        let sorted = places.map(|_| StackedRows {
            weights: weights.clone(),
            sorted: true,
        });
        let parts = StackedRows {
            weights,
            sorted: false,
        };
        Some(Self { parts, sorted })
    }
}

fn places(weight: &Arc<dyn PackedWeight>) -> Option<&[u32]> {
    weight.reordered().map(|(_, places)| places)
}

impl PackedWeight for StackedWeight {
    fn shape(&self) -> [usize; 2] {
        self.parts.shape()
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        self.parts.decode_tile(rows, cols, out);
    }

    fn dot(&self, rows: Range<usize>, x: &InputRow, out: &mut [f32]) {
        self.parts.dot(rows, x, out);
    }

    fn reordered(&self) -> Option<(&dyn PackedWeight, &[u32])> {
        let sorted = self.sorted.as_ref()?;
        Some((sorted, places(&sorted.weights[0])?))
    }

    fn packed_bytes(&self) -> usize {
        self.parts.packed_bytes()
    }

    fn info(&self) -> WeightInfo {
        self.parts.info()
    }
}

/// The weights with their input features as they are, or in the other order.
#[derive(Debug)]
struct StackedRows {
    weights: Vec<Arc<dyn PackedWeight>>,
    sorted: bool,
}

impl StackedRows {
    /// Calls `f` with the parts that have some of `rows`, and which of theirs these are.
    fn each(&self, rows: Range<usize>, mut f: impl FnMut(&dyn PackedWeight, Range<usize>)) {
        let mut first = 0;
        for weight in &self.weights {
            let end = first + weight.shape()[0];
            let (from, to) = (rows.start.max(first), rows.end.min(end));
            if from < to {
                let sorted = weight.reordered().filter(|_| self.sorted);
                let weight = sorted.map_or(&**weight, |(sorted, _)| sorted);
                f(weight, from - first..to - first);
            }
            first = end;
        }
    }
}

impl PackedWeight for StackedRows {
    fn shape(&self) -> [usize; 2] {
        let rows = self.weights.iter().map(|weight| weight.shape()[0]).sum();
        [rows, self.weights[0].shape()[1]]
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, mut out: &mut [f32]) {
        self.each(rows, |weight, rows| {
            let (here, rest) = std::mem::take(&mut out).split_at_mut(rows.len() * cols.len());
            weight.decode_tile(rows, cols.clone(), here);
            out = rest;
        });
    }

    fn dot(&self, rows: Range<usize>, x: &InputRow, mut out: &mut [f32]) {
        self.each(rows, |weight, rows| {
            let (here, rest) = std::mem::take(&mut out).split_at_mut(rows.len());
            weight.dot(rows, x, here);
            out = rest;
        });
    }

    fn packed_bytes(&self) -> usize {
        let bytes = self.weights.iter().map(|weight| weight.packed_bytes());
        bytes.sum()
    }

    fn info(&self) -> WeightInfo {
        self.weights[0].info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::packed_matmul;
    use crate::{
        CodeMap, Codes, DenseWeight, FloatFormat, Floats, GroupedWeight, Groups, Matrix, Scales,
    };

    #[test]
    fn a_product_is_those_of_the_parts() {
        let k = 64;
        let dense = |n: usize| -> Arc<dyn PackedWeight> {
            let values: Vec<f32> = (0..n * k).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
            Arc::new(DenseWeight::from_f32(&values, [n, k]))
        };
        let codes = Codes::pack(4, (0..5 * k as u32).map(|i| (i * 37 + 11) as u8));
        let scales = Floats::from_f32(&[0.5, 1.0, -2.0, 4.0, 3.0], FloatFormat::F32).unwrap();
        let (map, scales) = (CodeMap::Unsigned, Scales::Plain(scales));
        let small = GroupedWeight::builder([5, k], codes, map, Groups::ROW, scales);
        let small = small.build("test").unwrap();
        let parts = vec![dense(20), Arc::new(small), dense(1), dense(9)];
        let x: Vec<f32> = (0..k).map(|i| (i * 29 % 31) as f32 - 15.0).collect();
        let each = parts.iter().map(|part| packed_matmul(&x, &**part, false));
        let expected: Vec<f32> = each.flatten().collect();
        let stacked = StackedWeight::new(parts).unwrap();
        assert_eq!(stacked.shape(), [35, k]);
        assert_eq!(packed_matmul(&x, &stacked, false), expected);
        let mut tile = vec![0.0; 2 * 3];
        stacked.decode_tile(19..21, 4..7, &mut tile);
        let mut part = vec![0.0; 3];
        stacked.parts.weights[1].decode_tile(0..1, 4..7, &mut part);
        assert_eq!(tile[3..], part);
        assert!(StackedWeight::new(Vec::new()).is_none());
        assert!(stacked.reordered().is_none());
        let narrow = DenseWeight::from_f32(&[1.0], [1, 1]);
        assert!(StackedWeight::new(vec![dense(1), Arc::new(narrow)]).is_none());
    }

    #[test]
    fn parts_in_the_same_other_order_are_sorted_together() {
        let k = 128;
        let sorted = |n: usize, turn: usize| -> Arc<dyn PackedWeight> {
            let codes = Codes::pack(4, (0..(n * k) as u32).map(|i| (i * 37 + 11) as u8));
            let scales: Vec<f32> = (0..2 * n).map(|g| g as f32 - 3.0).collect();
            let scales = Floats::from_f32(&scales, FloatFormat::F32).unwrap();
            let index = (0..k).map(|i| ((i + turn) % 2) as u32).collect();
            let groups = Groups::Indexed { index, count: 2 };
            let scales = Scales::Plain(scales);
            let weight = GroupedWeight::builder([n, k], codes, CodeMap::Unsigned, groups, scales);
            weight.build("test").unwrap().sorted()
        };
        let parts = vec![sorted(5, 0), sorted(20, 0)];
        let x: Vec<f32> = (0..k).map(|i| (i * 29 % 31) as f32 - 15.0).collect();
        let each = parts.iter().map(|part| packed_matmul(&x, &**part, false));
        let expected: Vec<f32> = each.flatten().collect();
        let plain = Matrix::decode(&*parts[1]);
        let stacked = StackedWeight::new(parts).unwrap();
        assert!(stacked.reordered().is_some());
        assert_eq!(packed_matmul(&x, &stacked, false), expected);
        let mut tile = vec![0.0; k];
        stacked.decode_tile(8..9, 0..k, &mut tile);
        assert_eq!(tile, plain.row(3));
        assert!(StackedWeight::new(vec![sorted(5, 0), sorted(5, 1)]).is_none());
    }
}
