//! Choosing codes so that later weights of a row make up for the errors of earlier ones.
//!
//! This is GPTQ (Frantar et al., arXiv 2210.17323, algorithm 1). It takes the weights of a row one
//! after another, and spreads the error of each over those that follow, by the rows of `U` with
//! `H⁻¹ = Uᵀ U`. Here the same is computed from `H = L Lᵀ` itself, without an inverse, as Babai's
//! nearest plane method does (Chen et al., arXiv 2507.18553, theorem 4): with the features in the
//! order in which they are taken from the last to the first,
//!
//! `(w − q) H (w − q)ᵀ = ‖(w − q) L‖² = Σⱼ Lⱼⱼ² ((wⱼ + Σ_{i>j} (wᵢ − qᵢ) Lᵢⱼ / Lⱼⱼ) − qⱼ)²`
//!
//! and so `qⱼ` is the number that is nearest to the term in the inner brackets.

use qoft_kernels::Matrix;
use qoft_kernels::gemm::{Mat, matmul};
use rayon::prelude::*;

use crate::cholesky;
use crate::hessian::Hessian;
use qoft_scheme::{CodeSearch, Grid, Nearest};

/// Features whose effect on all others is computed at once.
const BATCH: usize = 128;
/// Rows of the weight that a thread takes at once.
const BAND: usize = 32;
/// How often the damping is made ten times larger for a matrix that rounding made indefinite.
const DAMPING_ATTEMPTS: i32 = 4;

/// Settings of [`Compensated`]; the defaults are those of GPTQ's own code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompensateOptions {
    /// What is added to the diagonal of the Hessian, as a share of its mean.
    pub damping: f32,
    /// Whether features with large inputs come first, rather than those in front. As the scales
    /// are fixed before, any order does for every scheme.
    pub by_size: bool,
}

impl Default for CompensateOptions {
    fn default() -> Self {
        Self {
            damping: 0.01,
            by_size: true,
        }
    }
}

/// Why codes cannot be chosen by a Hessian.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompensateError {
    /// Inputs were infinite, not a number, or too large.
    #[error("the inputs' products are not finite")]
    NotFinite,
    /// The damping is no positive number.
    #[error("a damping of {0} is not positive and finite")]
    Damping(f32),
    /// The Hessian is no sum of products, even if damped.
    #[error("the inputs' products are not positive definite")]
    Indefinite,
}

/// Chooses codes by the inputs of a layer: errors of single weights cancel each other in the
/// layer's outputs. Each row has at most the error `(w − q) H (w − q)ᵀ` that [`Nearest`] gives it.
///
/// Inputs that are always 0 have no effect on other weights. GPTQ's own code sets their weights to
/// 0 before it chooses scales; here scales are chosen already, and these weights get the nearest
/// codes.
#[derive(Debug, Clone)]
pub struct Compensated {
    /// Input features, to be taken from the last to the first.
    order: Vec<usize>,
    /// `Lᵢⱼ / Lⱼⱼ` for `i > j` in that order, 0 elsewhere.
    links: Vec<f32>,
    /// `Lⱼⱼ²`.
    squares: Vec<f64>,
    /// What was added to the diagonal.
    damping: f64,
}

impl Compensated {
    /// A search for the weight whose inputs have this Hessian.
    ///
    /// # Errors
    /// If the Hessian has values that are not finite or is no sum of products, or the damping is
    /// not positive.
    pub fn new(hessian: &Hessian, options: &CompensateOptions) -> Result<Self, CompensateError> {
        if !(options.damping > 0.0 && options.damping.is_finite()) {
            return Err(CompensateError::Damping(options.damping));
        }
        if hessian.lower().flatten().any(|sum| !sum.is_finite()) {
            return Err(CompensateError::NotFinite);
        }
        let width = hessian.width();
        let diagonal: Vec<f64> = (0..width)
            .map(|k| f64::from(hessian.get(k, k)).max(0.0))
            .collect();
        let mut order: Vec<usize> = (0..width).collect();
        if options.by_size {
            order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        }
        order.reverse();
        let alive = diagonal.iter().filter(|&&sum| sum > 0.0).count();
        let mean = match alive {
            0 => 1.0,
            alive => diagonal.iter().sum::<f64>() / alive as f64,
        };
        for attempt in 0..DAMPING_ATTEMPTS {
            let damping = f64::from(options.damping) * 10f64.powi(attempt) * mean;
            let mut factor = Vec::with_capacity(width * width);
            for (row, &i) in order.iter().enumerate() {
                factor.extend(order.iter().map(|&j| f64::from(hessian.get(i, j))));
                let own = &mut factor[row * width + row];
                *own = if diagonal[i] > 0.0 { *own } else { mean } + damping;
            }
            if cholesky::factor(&mut factor, width) {
                return Ok(Self::from_factor(order, &factor, damping));
            }
        }
        Err(CompensateError::Indefinite)
    }

    fn from_factor(order: Vec<usize>, factor: &[f64], damping: f64) -> Self {
        let width = order.len();
        let diagonal: Vec<f64> = (0..width).map(|j| factor[j * width + j]).collect();
        let mut links = vec![0.0; width * width];
        for (i, links) in links.chunks_exact_mut(width.max(1)).enumerate() {
            let pairs = factor[i * width..][..i].iter().zip(&diagonal);
            for (link, (value, diagonal)) in links.iter_mut().zip(pairs) {
                *link = (value / diagonal) as f32;
            }
        }
        let squares = diagonal.iter().map(|value| value * value).collect();
        Self {
            order,
            links,
            squares,
            damping,
        }
    }
}

impl CodeSearch for Compensated {
    /// One code for each weight, row-major. Weights for another number of inputs get the nearest
    /// codes.
    fn codes(&self, weight: &Matrix, grid: &dyn Grid) -> Vec<u8> {
        let cols = weight.shape[1];
        if cols != self.order.len() || cols == 0 {
            return Nearest.codes(weight, grid);
        }
        let mut codes = vec![0; weight.values.len()];
        codes
            .par_chunks_mut(BAND * cols)
            .zip(weight.values.par_chunks(BAND * cols))
            .enumerate()
            .for_each(|(band, (codes, values))| {
                let first_row = band * BAND;
                let nearest = self.sweep(values, first_row, grid, Choice::Nearest);
                let found = self.sweep(values, first_row, grid, Choice::Compensating);
                let rows = codes.chunks_exact_mut(cols).enumerate();
                for (row, codes) in rows {
                    let better = found.errors[row] < nearest.errors[row];
                    let best = if better { &found } else { &nearest };
                    codes.copy_from_slice(&best.codes[row * cols..][..cols]);
                }
            });
        codes
    }
}

/// Which number a weight gets.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    /// That nearest to the weight.
    Nearest,
    /// That nearest to the weight and what it has to make up for.
    Compensating,
}

/// The codes of some rows.
struct ChosenCodes {
    codes: Vec<u8>,
    /// `(w − q) H (w − q)ᵀ` of each row.
    errors: Vec<f64>,
}

impl Compensated {
    /// Chooses the codes of the rows of `values`, of which the first is row `first_row` of the
    /// weight.
    fn sweep(
        &self,
        values: &[f32],
        first_row: usize,
        grid: &dyn Grid,
        choice: Choice,
    ) -> ChosenCodes {
        let width = self.order.len();
        let rows = values.len() / width;
        let mut found = ChosenCodes {
            codes: vec![0; values.len()],
            errors: vec![0.0; rows],
        };
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
                let codes = &mut found.codes[at..][..width];
                let missing = &mut missing[at..][..width];
                for position in (start..end).rev() {
                    let (before, own) = carried.split_at_mut(position - start);
                    let (k, own) = (self.order[position], own[0]);
                    let wanted = match choice {
                        Choice::Nearest => values[k],
                        Choice::Compensating => values[k] + own,
                    };
                    let (code, number) = grid.nearest(first_row + row, k, wanted);
                    let off = values[k] - number;
                    (codes[k], missing[position]) = (code, off);
                    let left = f64::from(off) + f64::from(own);
                    // What the damping adds is no error.
                    found.errors[row] += self.squares[position] * left * left
                        - self.damping * f64::from(off) * f64::from(off);
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

#[cfg(test)]
mod tests;
