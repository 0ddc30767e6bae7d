//! Several weights as one, for products with the same activations.

use std::ops::Range;
use std::sync::Arc;

use crate::row::InputRow;
use crate::weight::{PackedWeight, WeightInfo};

/// Weights with the same input features, one below the other.
#[derive(Debug)]
pub struct StackedWeight {
    parts: Vec<Arc<dyn PackedWeight>>,
    shape: [usize; 2],
}

impl StackedWeight {
    /// `None` if there is no weight, their numbers of input features differ, or one of them wants
    /// these in an order of its own ([`PackedWeight::reordered`]).
    pub fn new(parts: Vec<Arc<dyn PackedWeight>>) -> Option<Self> {
        let k = parts.first()?.shape()[1];
        let fits =
            |part: &Arc<dyn PackedWeight>| part.shape()[1] == k && part.reordered().is_none();
        parts.iter().all(fits).then(|| {
            let n = parts.iter().map(|part| part.shape()[0]).sum();
            let shape = [n, k];
            Self { parts, shape }
        })
    }

    /// Calls `f` with the parts that have some of `rows`, and how many of these each has.
    fn each(&self, rows: Range<usize>, mut f: impl FnMut(&dyn PackedWeight, Range<usize>)) {
        let mut first = 0;
        for part in &self.parts {
            let end = first + part.shape()[0];
            let (from, to) = (rows.start.max(first), rows.end.min(end));
            if from < to {
                f(&**part, from - first..to - first);
            }
            first = end;
        }
    }
}

impl PackedWeight for StackedWeight {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, mut out: &mut [f32]) {
        self.each(rows, |part, rows| {
            let (here, rest) = std::mem::take(&mut out).split_at_mut(rows.len() * cols.len());
            part.decode_tile(rows, cols.clone(), here);
            out = rest;
        });
    }

    fn dot(&self, rows: Range<usize>, x: &InputRow, mut out: &mut [f32]) {
        self.each(rows, |part, rows| {
            let (here, rest) = std::mem::take(&mut out).split_at_mut(rows.len());
            part.dot(rows, x, here);
            out = rest;
        });
    }

    fn packed_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.packed_bytes()).sum()
    }

    fn info(&self) -> WeightInfo {
        self.parts[0].info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::packed_matmul;
    use crate::{CodeMap, Codes, DenseWeight, FloatFormat, Floats, GroupedWeight, Groups, Scales};

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
        let small = GroupedWeight::new([5, k], codes, map, Groups::ROW, scales, "test").unwrap();
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
        stacked.parts[1].decode_tile(0..1, 4..7, &mut part);
        assert_eq!(tile[3..], part);
        assert!(StackedWeight::new(Vec::new()).is_none());
        let narrow = DenseWeight::from_f32(&[1.0], [1, 1]);
        assert!(StackedWeight::new(vec![dense(1), Arc::new(narrow)]).is_none());
    }
}
