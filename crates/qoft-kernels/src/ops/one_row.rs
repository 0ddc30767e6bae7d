//! Products of single rows with packed weights, as of the last token of a sequence: bound by reading the packed
//! bytes.

use std::ops::Range;
use std::sync::OnceLock;

use super::rotate::one_row::{piece_of, turn_piece};
use super::rotate::{block_shape, rotate};
use crate::op::HostView;
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
    let (parts, mut out) = parts(products.iter().map(|(_, weight)| *weight));
    let rows: Vec<InputRow> = products.iter().map(|(x, _)| InputRow::new(x)).collect();
    let width = out.len();
    team::pieces(&mut out, width, band(width), |start, out| {
        dots(&parts, |part| &rows[part], start, out);
    });
    out
}

/// `x · blockdiag(R) · Wᵀ` of one row for several pairs of blocks, `[r, b, b]` or `[1, b, b]`, and a weight, one
/// after another: the numbers of [`rotate`](super::rotate) and [`packed_matmul_each`], but threads meet once for
/// all of both.
///
/// # Panics
/// If the row has not as many values as each weight has input features, or blocks do not tile it.
pub fn turned_matmul_each(x: &[f32], products: &[(HostView, &dyn PackedWeight)]) -> Vec<f32> {
    let width = x.len();
    for (_, weight) in products {
        let [_, k] = weight.shape();
        assert_eq!(width, k, "a row for {k} input features");
    }
    if products
        .iter()
        .any(|(_, weight)| weight.reordered().is_some())
    {
        let row = HostView::new(std::slice::from_ref(&width), x);
        let turned = products
            .iter()
            .map(|(blocks, _)| rotate(row, *blocks, false));
        let turned: Vec<Vec<f32>> = turned.collect();
        let pairs = turned.iter().zip(products);
        let pairs: Vec<_> = pairs
            .map(|(row, (_, weight))| (&row[..], *weight))
            .collect();
        return one_row_each(&pairs);
    }
    let mut turns = Vec::new();
    let mut ends = Vec::new();
    for (index, (blocks, _)) in products.iter().enumerate() {
        let [stored, size, _] = block_shape(*blocks, width);
        let piece = piece_of(width, size).max(1);
        for start in (0..width).step_by(piece) {
            turns.push((blocks.data, [stored, size], start));
            ends.push(index * width + width.min(start + piece));
        }
    }
    let (parts, mut out) = parts(products.iter().map(|(_, weight)| *weight));
    let mut turned = vec![0.0; products.len() * width];
    let rows: Vec<OnceLock<InputRow>> = products.iter().map(|_| OnceLock::new()).collect();
    let band = band(out.len());
    team::pieces_after(
        &mut turned,
        &ends,
        |turn, piece| {
            let (blocks, shape, start) = turns[turn];
            turn_piece(x, blocks, shape, start, piece);
        },
        &mut out,
        band,
        |turned, start, out| {
            let row = |part: usize| {
                let row = &turned[part * width..][..width];
                rows[part].get_or_init(|| InputRow::new(row))
            };
            dots(&parts, row, start, out);
        },
    );
    out
}

/// The place of a product among others, and its weight.
type Part<'a> = (Range<usize>, &'a dyn PackedWeight);

/// Where the products with weights stand one after another, with the weights, and room for them.
fn parts<'a>(weights: impl Iterator<Item = &'a dyn PackedWeight>) -> (Vec<Part<'a>>, Vec<f32>) {
    let mut length = 0;
    let parts = weights.map(|weight| {
        let first = length;
        length += weight.shape()[0];
        (first..length, weight)
    });
    let parts = parts.collect();
    (parts, vec![0.0; length])
}

/// Numbers of a product that a thread makes at once.
fn band(length: usize) -> usize {
    length.div_ceil(4 * rayon::current_num_threads())
}

/// The numbers from `start` on of products, each with its row.
fn dots<'r, 'v: 'r>(
    parts: &[Part],
    row: impl Fn(usize) -> &'r InputRow<'v>,
    start: usize,
    mut out: &mut [f32],
) {
    let end = start + out.len();
    for (part, (rows, weight)) in parts.iter().enumerate() {
        let (from, to) = (start.max(rows.start), end.min(rows.end));
        if from < to {
            let (here, rest) = std::mem::take(&mut out).split_at_mut(to - from);
            weight.dot(from - rows.start..to - rows.start, row(part), here);
            out = rest;
        }
    }
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

    #[test]
    fn rows_are_turned_before_as_by_themselves() {
        for weights in [
            [dense(20, 96), dense(7, 96), dense(90, 96)],
            [dense(20, 96), reordered(5, 96, 0), dense(33, 96)],
        ] {
            let x = random(96, 1);
            let shapes = [[3, 32, 32], [1, 24, 24], [1, 96, 96]];
            let blocks = shapes.map(|[r, b, _]| random(r * b * b, b as u64));
            let views = [0, 1, 2].map(|i| HostView::new(&shapes[i], &blocks[i]));
            let mut expected = Vec::new();
            for (view, weight) in views.iter().zip(&weights) {
                let row = rotate(HostView::new(&[1, 96], &x), *view, false);
                expected.extend(packed_matmul(&row, &**weight, false));
            }
            let products = views.iter().zip(&weights);
            let products: Vec<_> = products.map(|(view, weight)| (*view, &**weight)).collect();
            for _ in 0..50 {
                assert_eq!(turned_matmul_each(&x, &products), expected);
            }
        }
    }
}
