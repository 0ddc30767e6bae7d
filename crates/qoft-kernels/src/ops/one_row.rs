//! Products of single rows with packed weights, as of the last token of a sequence: bound by reading the packed
//! bytes.

use crate::row::InputRow;
use crate::team;
use crate::weight::PackedWeight;

/// `x · Wᵀ` for several pairs of one row and a weight. Such a product takes so little time that threads
/// should meet once for all, not once for each.
///
/// # Panics
/// If a row has not as many values as its weight has input features.
pub fn packed_matmul_each<const N: usize>(
    products: [(&[f32], &dyn PackedWeight); N],
) -> [Vec<f32>; N] {
    let mut y = one_row_each(&products);
    let mut lengths = products.map(|(_, weight)| weight.shape()[0]).into_iter();
    products.map(|_| {
        let rest = y.split_off(lengths.next().unwrap_or_default());
        std::mem::replace(&mut y, rest)
    })
}

/// As [`packed_matmul_each`], of any number of pairs: the products one after another.
pub(super) fn one_row_each(products: &[(&[f32], &dyn PackedWeight)]) -> Vec<f32> {
    // The rows of weights whose input features are in another order, in that order.
    let sorted = products.iter().map(|(x, weight)| {
        let [_, k] = weight.shape();
        assert_eq!(x.len(), k, "a row for {k} input features");
        let (_, places) = weight.reordered()?;
        let mut row = vec![0.0; k];
        in_order(x, places, &mut row);
        Some(row)
    });
    let sorted: Vec<Option<Vec<f32>>> = sorted.collect();
    let mut ordered = products.to_vec();
    for ((x, weight), row) in ordered.iter_mut().zip(&sorted) {
        if let (Some(row), Some((sorted, _))) = (row, weight.reordered()) {
            (*x, *weight) = (row, sorted);
        }
    }
    one_row(&ordered)
}

/// Brings a row of activations into the order of a weight whose input features stand at `places`.
pub(super) fn in_order(row: &[f32], places: &[u32], out: &mut [f32]) {
    for (&value, &place) in row.iter().zip(places) {
        out[place as usize] = value;
    }
}

/// The products with weights whose input features are in order, one after another.
fn one_row(products: &[(&[f32], &dyn PackedWeight)]) -> Vec<f32> {
    let mut length = 0;
    let parts = products.iter().map(|(x, weight)| {
        let first = length;
        length += weight.shape()[0];
        (first..length, InputRow::new(x), *weight)
    });
    let parts: Vec<_> = parts.collect();
    let mut out = vec![0.0; length];
    let band = length.div_ceil(4 * rayon::current_num_threads());
    team::pieces(&mut out, length, band, |start, mut out| {
        let end = start + out.len();
        for (rows, x, weight) in &parts {
            let (from, to) = (start.max(rows.start), end.min(rows.end));
            if from < to {
                let (here, rest) = std::mem::take(&mut out).split_at_mut(to - from);
                weight.dot(from - rows.start..to - rows.start, x, here);
                out = rest;
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ops::packed_matmul;
    use crate::ops::testing::random;
    use crate::{CodeMap, Codes, DenseWeight, FloatFormat, Floats, GroupedWeight, Groups, Scales};

    fn dense(n: usize, k: usize) -> Arc<dyn PackedWeight> {
        Arc::new(DenseWeight::from_f32(&random(n * k, n as u64), [n, k]))
    }

    /// Its input features are in another order.
    fn reordered(n: usize, k: usize, turn: usize) -> Arc<dyn PackedWeight> {
        let codes = Codes::pack(4, (0..(n * k) as u32).map(|i| (i * 37 + 11) as u8));
        let scales: Vec<f32> = (0..2 * n).map(|g| g as f32 - 3.0).collect();
        let scales = Scales::Plain(Floats::from_f32(&scales, FloatFormat::F32).unwrap());
        let index = (0..k).map(|i| ((i + turn) % 2) as u32).collect();
        let groups = Groups::Indexed { index, count: 2 };
        let weight = GroupedWeight::builder([n, k], codes, CodeMap::Unsigned, groups, scales);
        weight.build("test").unwrap().sorted()
    }

    #[test]
    fn products_together_are_those_alone() {
        let weights = [
            dense(20, 64),
            reordered(5, 128, 0),
            dense(1, 3),
            reordered(90, 128, 1),
        ];
        let rows = [64, 128, 3, 128].map(|k| random(k, k as u64));
        assert!(weights[1].reordered().is_some());
        let mut pairs = rows.iter().zip(&weights);
        let pairs = [(); 4].map(|()| pairs.next().unwrap());
        let together = packed_matmul_each(pairs.map(|(x, weight)| (&x[..], &**weight)));
        let alone = pairs.map(|(x, weight)| packed_matmul(x, &**weight, false));
        assert_eq!(together, alone);
    }
}
