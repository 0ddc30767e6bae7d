//! Changed weights as sums of vectors again.

use qoft_scheme::kernels::{Matrix, transpose};
use qoft_scheme::{NewTensor, Requantize, Result};

use crate::layout::{AqlmLayer, CodesOrder};
use crate::sums::Sums;

/// How often codebooks are fitted and codes chosen anew, at most.
const ROUNDS: usize = 8;
/// A round that makes the squared error smaller by less than this share of it is the last one.
const GAIN: f64 = 1e-3;

/// What becomes of the codebooks of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Codebooks {
    /// They stay: only codes and scales change.
    Keep,
    /// They are fitted to the changed weight.
    #[default]
    Refit,
}

impl Codebooks {
    /// The values of the option.
    pub const NAMES: [(&str, Self); 2] = [("keep", Self::Keep), ("refit", Self::Refit)];
}

/// The layer again: codes that bring the sums of vectors near to the weights, scales that fit
/// these sums, and vectors that fit both. A search of codes one by one does not apply, since a
/// code covers several weights.
///
/// # Errors
/// If the layer has no weights, or it could not be read back.
pub fn requantize(
    parsed: &AqlmLayer,
    weight: &Matrix,
    codebooks: Codebooks,
    how: &Requantize,
) -> Result<Vec<NewTensor>> {
    let layer = &how.current;
    if parsed.shape.contains(&0) {
        return Err(layer.error("it has no weights"));
    }
    if parsed.permuted && parsed.order == CodesOrder::Either {
        let reason = "its codes are permuted, which only other layers of the checkpoint tell; \
                      it cannot be written alone. Merge into dense weights instead";
        return Err(layer.error(reason));
    }
    let sums = fitted(Sums::new(&parsed.tensors()?), weight, codebooks);
    let mut codes = sums.code_bytes();
    if parsed.permuted {
        codes = transpose(&codes, parsed.code_size(), parsed.groups());
    }
    layer.with_rest(vec![
        layer.rewritten("codes", codes)?,
        layer.rewritten("codebooks", sums.book_bytes())?,
        layer.rewritten("scales", sums.scale_bytes())?,
    ])
}

/// Sums near to a weight. Fitted codebooks are at least as near as those that stay.
fn fitted(mut best: Sums, weight: &Matrix, codebooks: Codebooks) -> Sums {
    let mut error = best.search(weight);
    if codebooks == Codebooks::Keep {
        return best;
    }
    for _ in 0..ROUNDS {
        let mut next = best.clone();
        next.refit(weight);
        let after = next.search(weight);
        if after >= error || after.is_nan() {
            break;
        }
        let enough = error - after < GAIN * error;
        (best, error) = (next, after);
        if enough {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests;
