//! Products of groups of rows, each with a weight of its own.

use std::sync::Arc;

use super::many_rows::grouped_rows;
use super::one_row::one_row_each;
use super::packed_matmul::packed_matmul;
use crate::op::{Forward, HostOp, HostView};
use crate::weight::PackedWeight;

/// `y = x · Wᵀ`, where each group of consecutive rows of `x` meets a weight of its own, which is decoded
/// once. Input: `[rows, in_features]`; output: `[rows, out_features]`.
#[derive(Debug, Clone)]
pub struct GroupedMatmul {
    groups: Vec<(Arc<dyn PackedWeight>, usize)>,
}

impl GroupedMatmul {
    /// The weight of each group, and how many rows the group has.
    ///
    /// # Panics
    /// If there is no group, or the weights are of different shapes.
    pub fn new(groups: Vec<(Arc<dyn PackedWeight>, usize)>) -> Self {
        let shape = groups.first().expect("one group or more").0.shape();
        let same = groups.iter().all(|(weight, _)| weight.shape() == shape);
        assert!(same, "the weights of all groups have the same shape");
        Self { groups }
    }

    /// The weights, and how many rows meet each of them.
    pub fn groups(&self) -> &[(Arc<dyn PackedWeight>, usize)] {
        &self.groups
    }

    /// `[out_features, in_features]` of each weight.
    fn shape(&self) -> [usize; 2] {
        self.groups[0].0.shape()
    }

    /// Each group by its weight, or with `transpose` by the transposed one.
    fn products(&self, x: &[f32], transpose: bool) -> Vec<f32> {
        let [n, k] = self.shape();
        let (from, to) = if transpose { (n, k) } else { (k, n) };
        let rows: usize = self.groups.iter().map(|(_, rows)| rows).sum();
        assert_eq!(x.len(), rows * from, "{rows} rows of {from} expected");
        let groups = self.groups.iter().filter(|(_, rows)| *rows > 0);
        let groups: Vec<_> = groups.map(|(weight, rows)| (&**weight, *rows)).collect();
        if !transpose && groups.iter().all(|(_, rows)| *rows == 1) {
            let pairs = x.chunks_exact(from).zip(&groups);
            return one_row_each(
                &pairs
                    .map(|(x, (weight, _))| (x, *weight))
                    .collect::<Vec<_>>(),
            );
        }
        if groups
            .iter()
            .all(|(weight, _)| weight.reordered().is_none())
        {
            let dtype = groups.first().map(|(weight, _)| weight.compute_dtype());
            return grouped_rows(x, &groups, transpose, dtype.unwrap_or_default());
        }
        let mut out = Vec::with_capacity(rows * to);
        let mut rest = x;
        for (weight, rows) in groups {
            let (here, others) = rest.split_at(rows * from);
            out.extend(packed_matmul(here, weight, transpose));
            rest = others;
        }
        out
    }
}

impl HostOp for GroupedMatmul {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let out = self.products(inputs[0].data, false);
        Forward::new(&[inputs[0].shape[0], self.shape()[0]], out)
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    fn backward(
        &self,
        _inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        vec![Some(self.products(grad.data, true))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;
    use crate::DenseWeight;

    fn weights(count: u64) -> Vec<Arc<dyn PackedWeight>> {
        let weight = |seed| -> Arc<dyn PackedWeight> {
            Arc::new(DenseWeight::from_f32(&random(5 * 7, seed), [5, 7]))
        };
        (0..count).map(weight).collect()
    }

    #[test]
    fn each_group_meets_its_own_weight() {
        let weights = weights(4);
        for rows in [[3, 0, 1, 150], [1, 1, 0, 1]] {
            let op = GroupedMatmul::new(weights.iter().cloned().zip(rows).collect());
            let all: usize = rows.iter().sum();
            let x = random(all * 7, 9);
            let found = op.forward(&[HostView::new(&[all, 7], &x)], false);
            let mut expected = Vec::new();
            let mut rest = &x[..];
            for (weight, rows) in weights.iter().zip(rows) {
                let (part, others) = rest.split_at(rows * 7);
                expected.extend(packed_matmul(part, &**weight, false));
                rest = others;
            }
            assert_eq!(found.shape, [all, 5]);
            assert_eq!(found.data, expected);
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let op = GroupedMatmul::new(weights(3).into_iter().zip([2, 1, 3]).collect());
        check_gradients(&op, &[(vec![6, 7], random(42, 4))]);
    }

    #[test]
    #[should_panic(expected = "same shape")]
    fn weights_of_different_shapes_are_refused() {
        let other: Arc<dyn PackedWeight> = Arc::new(DenseWeight::from_f32(&[1.0], [1, 1]));
        GroupedMatmul::new(vec![(weights(1).swap_remove(0), 1), (other, 1)]);
    }
}
