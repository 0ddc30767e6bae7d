//! One weight of a row after another, each making up for the errors of those before it.
//!
//! GPTQ spreads the error of each weight over those that follow, by the rows of `U` with
//! `H⁻¹ = Uᵀ U`. Here the same is computed from `H = L Lᵀ` itself, without an inverse, as Babai's
//! nearest plane method does (Chen et al., arXiv 2507.18553, theorem 4): with the features in the
//! order in which they are taken from the last to the first,
//!
//! `(w − q) H (w − q)ᵀ = ‖(w − q) L‖² = Σⱼ Lⱼⱼ² ((wⱼ + Σ_{i>j} (wᵢ − qᵢ) Lᵢⱼ / Lⱼⱼ) − qⱼ)²`
//!
//! and so `qⱼ` is the number that is nearest to the term in the inner brackets.

use qoft_kernels::gemm::{Mat, matmul};

use super::lattice::{Lattice, Number};

/// Features whose effect on all others is computed at once.
const BATCH: usize = 128;

/// The Cholesky factor of a Hessian.
#[derive(Debug, Clone)]
pub(super) struct Factor {
    /// Input features, to be taken from the last to the first.
    order: Vec<usize>,
    /// `Lᵢⱼ / Lⱼⱼ` for `i > j` in that order, 0 elsewhere.
    links: Vec<f32>,
}

impl Factor {
    /// From `L`, row-major; its upper triangle is not read.
    pub fn new(order: Vec<usize>, factor: &[f64]) -> Self {
        let width = order.len();
        let diagonal: Vec<f64> = (0..width).map(|j| factor[j * width + j]).collect();
        let mut links = vec![0.0; width * width];
        for (i, links) in links.chunks_exact_mut(width.max(1)).enumerate() {
            let pairs = factor[i * width..][..i].iter().zip(&diagonal);
            for (link, (value, diagonal)) in links.iter_mut().zip(pairs) {
                *link = (value / diagonal) as f32;
            }
        }
        Self { order, links }
    }

    /// Input features, to be taken from the last to the first.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Chooses the codes of the rows of `values`, of which the first is row `first` of the weight,
    /// and which have these scales.
    pub fn sweep(
        &self,
        values: &[f32],
        first: usize,
        lattice: Lattice,
        scales: &[f32],
    ) -> Vec<Number> {
        let (width, groups) = (self.order.len(), lattice.groups());
        let rows = values.len() / width;
        let mut found = vec![(0, 0.0); values.len()];
        // `w − q`, with the features in their order.
        let mut missing = vec![0.0; values.len()];
        let mut carried = Vec::new();
        for batch in (0..width.div_ceil(BATCH)).rev() {
            let start = batch * BATCH;
            let end = width.min(start + BATCH);
            let size = end - start;
            // What all features behind the batch leave to it.
            carried.clear();
            carried.resize(rows * size, 0.0);
            if end < width {
                let missing = Mat::new(&missing[end..], rows, width - end, width);
                let links = Mat::new(&self.links[end * width + start..], width - end, size, width);
                matmul(&mut carried, size, missing, links, false);
            }
            for (row, carried) in carried.chunks_exact_mut(size).enumerate() {
                let at = row * width;
                let values = &values[at..][..width];
                let scales = &scales[row * groups..][..groups];
                let missing = &mut missing[at..][..width];
                for position in (start..end).rev() {
                    let (before, own) = carried.split_at_mut(position - start);
                    let k = self.order[position];
                    let number = lattice.nearest(scales, first + row, k, values[k] + own[0]);
                    let off = values[k] - number.1;
                    (found[at + k], missing[position]) = (number, off);
                    let links = &self.links[position * width + start..][..before.len()];
                    for (carried, link) in before.iter_mut().zip(links) {
                        *carried += off * link;
                    }
                }
            }
        }
        found
    }
}
