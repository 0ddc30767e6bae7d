//! Rows that go to weights of their own.

use burn::tensor::{Int, Tensor};
use qoft_kernels::ops::{GroupedMatmul, RoutedRows};

use crate::ops::packed;

/// `x · Wᵀ`, where each group of consecutive rows of `x` meets a weight of its own.
pub fn grouped_matmul(x: Tensor<2>, op: &GroupedMatmul) -> Tensor<2> {
    let mut first = 0;
    let groups = op.groups().iter().filter(|(_, rows)| *rows > 0);
    let products = groups.map(|(weight, rows)| {
        let part = x.clone().narrow(0, first, *rows);
        first += rows;
        packed::matmul(part, weight, false)
    });
    Tensor::cat(products.collect(), 0)
}

/// Copies each row of `x` to its places.
pub fn spread_rows(x: Tensor<2>, rows: &RoutedRows) -> Tensor<2> {
    let sources = indices(rows.sources(), &x);
    x.select(0, sources)
}

/// Adds up what stands at the places of each row.
pub fn collect_rows(y: Tensor<2>, rows: &RoutedRows) -> Tensor<2> {
    let [places, width] = y.dims();
    let order = indices(rows.places(), &y);
    let copies = rows.copies();
    let y = y.select(0, order).reshape([places / copies, copies, width]);
    y.sum_dim(1).reshape([places / copies, width])
}

fn indices(values: &[usize], like: &Tensor<2>) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let device = like.device().without_autodiff();
    Tensor::from_data(values.as_slice(), &device)
}
