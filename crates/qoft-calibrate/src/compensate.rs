//! Choosing codes so that errors of single weights cancel each other in a layer's outputs.
//!
//! The outputs of a layer with weight rows `q` instead of `w` are off by `(w − q) H (w − q)ᵀ`. The
//! codes of a row are chosen in two steps:
//!
//! 1. A sweep (`sweep`), as GPTQ does it (Frantar et al., arXiv 2210.17323, algorithm 1).
//! 2. Coordinate descent (`descent`): single codes and, where the scheme can store others, single
//!    scales change as long as that makes up for more.

mod descent;
mod lattice;
mod sweep;

use qoft_kernels::Matrix;
use rayon::prelude::*;

use crate::cholesky;
use crate::hessian::Hessian;
use descent::{Band, Goal, Metric};
use lattice::Lattice;
use qoft_scheme::{CodeSearch, Grid, Nearest, ScaleSearch, ScaledCodes, ScaledGrid};
use sweep::Factor;

/// Rows of the weight that a thread takes at once.
const BAND: usize = 32;
/// How often the damping is made ten times larger for a matrix that rounding made indefinite.
const DAMPING_ATTEMPTS: i32 = 4;

/// Settings of [`Compensated`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CompensateOptions {
    /// What is added to the diagonal of the Hessian, as a share of its mean; GPTQ's own code has
    /// the same.
    pub damping: f32,
    /// Whether features with large inputs come first, rather than those in front. As the scales
    /// are fixed before, any order does for every scheme.
    pub by_size: bool,
    /// How often codes and scales are gone through after the first choice.
    pub passes: usize,
    /// How much more an error counts that undoes a change, see [`Compensated::keeping`].
    pub undoing: f32,
}

impl Default for CompensateOptions {
    fn default() -> Self {
        Self {
            damping: 0.01,
            by_size: true,
            passes: 4,
            undoing: 2.0,
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
    /// The weight of undoing is negative or no number.
    #[error("a weight of {0} for what undoes the change is negative or not finite")]
    Undoing(f32),
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
    factor: Factor,
    /// `[width, width]`: the Hessian, damped.
    metric: Vec<f32>,
    /// What was added to its diagonal.
    damping: f32,
    passes: usize,
    undoing: f32,
    /// The weight that was changed, if the change is to arrive.
    before: Option<Matrix>,
}

impl Compensated {
    /// A search for the weight whose inputs have this Hessian.
    ///
    /// # Errors
    /// If the Hessian has values that are not finite or is no sum of products, or an option is out
    /// of range.
    pub fn new(hessian: &Hessian, options: &CompensateOptions) -> Result<Self, CompensateError> {
        if !(options.damping > 0.0 && options.damping.is_finite()) {
            return Err(CompensateError::Damping(options.damping));
        }
        if !(options.undoing >= 0.0 && options.undoing.is_finite()) {
            return Err(CompensateError::Undoing(options.undoing));
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
            // Features without inputs are on their own.
            let own = |k: usize| match diagonal[k] > 0.0 {
                true => f64::from(hessian.get(k, k)) + damping,
                false => mean + damping,
            };
            let mut factor = Vec::with_capacity(width * width);
            for (row, &i) in order.iter().enumerate() {
                factor.extend(order.iter().map(|&j| f64::from(hessian.get(i, j))));
                factor[row * width + row] = own(i);
            }
            if !cholesky::factor(&mut factor, width) {
                continue;
            }
            let mut metric = vec![0.0; width * width];
            let rows = metric.par_chunks_exact_mut(width.max(1)).enumerate();
            rows.for_each(|(i, row)| {
                let values = row.iter_mut().enumerate();
                values.for_each(|(j, value)| *value = hessian.get(i, j));
                row[i] += damping as f32;
            });
            return Ok(Self {
                factor: Factor::new(order, &factor),
                metric,
                damping: damping as f32,
                passes: options.passes,
                undoing: options.undoing,
                before: None,
            });
        }
        Err(CompensateError::Indefinite)
    }

    /// The search for a weight that is a changed `before`: what undoes the change counts more than
    /// other errors. Rows of a weight of another shape are searched for as without it.
    ///
    /// A change that is smaller than the steps of a grid is lost first by every rounding, and the
    /// smallest error has a row whose change has shrunk. In a single layer that is as good as any
    /// other error of this size. But layers are changed together: what is lost of each adds up, and
    /// other errors do not. So the codes are those with the least
    /// `‖w − q‖² + undoing · ⟨w − q, Δ⟩² / ‖Δ‖²`, with the change `Δ` and `⟨a, b⟩ = a H bᵀ`.
    #[must_use]
    pub fn keeping(self, before: Matrix) -> Self {
        Self {
            before: Some(before),
            ..self
        }
    }

    /// Input features.
    fn width(&self) -> usize {
        self.factor.order().len()
    }

    /// What errors are measured by.
    fn metric(&self) -> Metric<'_> {
        Metric {
            values: &self.metric,
            width: self.width(),
            damping: self.damping,
        }
    }

    /// Fills `codes`, and `scales` if the lattice has such, band by band.
    fn search(&self, weight: &Matrix, lattice: Lattice, codes: &mut [u8], scales: &mut [f32]) {
        let (width, groups) = (self.width(), lattice.groups());
        let before = self.before.as_ref();
        let before = before.filter(|before| before.shape == weight.shape);
        // Chunks of nothing are not allowed: rows without scales of their own have one that nobody
        // reads.
        let mut unused = vec![0.0; weight.shape[0]];
        let (scales, per_row) = match groups {
            0 => (&mut unused[..], 1),
            groups => (scales, groups),
        };
        codes
            .par_chunks_mut(BAND * width)
            .zip(scales.par_chunks_mut(BAND * per_row))
            .zip(weight.values.par_chunks(BAND * width))
            .enumerate()
            .for_each(|(band, ((codes, scales), values))| {
                let at = band * BAND * width;
                let before = before.map(|before| &before.values[at..][..values.len()]);
                let scales = if groups == 0 { &mut [] } else { scales };
                self.band(values, before, band * BAND, lattice, codes, scales);
            });
    }

    /// The codes and scales of the rows of `values`, of which the first is row `first` of the
    /// weight, and which were those of `before`.
    fn band(
        &self,
        values: &[f32],
        before: Option<&[f32]>,
        first: usize,
        lattice: Lattice,
        codes: &mut [u8],
        scales: &mut [f32],
    ) {
        let (width, groups) = (self.width(), lattice.groups());
        let goal = Goal::new(self.metric(), values, before, self.undoing);
        lattice.scales(first, scales);
        let nearest = lattice.nearest_to_all(width, first, scales, values);
        let nearest = Band::new(&goal, lattice, first, nearest, scales);
        let swept = self.factor.sweep(values, first, lattice, scales);
        let mut found = Band::new(&goal, lattice, first, swept, scales);
        found.descend(self.factor.order(), self.passes);
        for row in 0..values.len() / width {
            let better = found.cost(row) < nearest.cost(row);
            let best = if better { &found } else { &nearest };
            let (at, group) = (row * width, row * groups);
            codes[at..][..width].copy_from_slice(&best.codes[at..][..width]);
            scales[group..][..groups].copy_from_slice(&best.scales[group..][..groups]);
        }
    }
}

impl CodeSearch for Compensated {
    /// One code for each weight, row-major. Weights for another number of inputs get the nearest
    /// codes.
    fn codes(&self, weight: &Matrix, grid: &dyn Grid) -> Vec<u8> {
        if weight.shape[1] != self.width() || self.width() == 0 {
            return Nearest.codes(weight, grid);
        }
        let mut codes = vec![0; weight.values.len()];
        self.search(weight, Lattice::fixed(grid), &mut codes, &mut []);
        codes
    }

    fn with_scales(&self) -> Option<&dyn ScaleSearch> {
        Some(self)
    }
}

impl ScaleSearch for Compensated {
    /// Weights for another number of inputs get the nearest codes, and keep their scales.
    fn codes_and_scales(&self, weight: &Matrix, grid: &dyn ScaledGrid) -> ScaledCodes {
        let [rows, cols] = weight.shape;
        let lattice = Lattice::scaled(grid);
        if cols != self.width() || cols == 0 {
            return ScaledCodes::on(grid, Nearest.codes(weight, grid), rows);
        }
        let (mut codes, mut scales) = (vec![0; rows * cols], vec![0.0; rows * grid.groups()]);
        self.search(weight, lattice, &mut codes, &mut scales);
        ScaledCodes::new(codes, scales)
    }
}

#[cfg(test)]
mod tests;
