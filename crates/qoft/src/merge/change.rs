//! How much of what adapters change is in the weight that was written.

use qoft_calibrate::{Hessian, Kept};
use qoft_core::Matrix;

use crate::adapted::sums;

/// What adapters change of a layer's outputs on calibration data, and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct OutputChange {
    /// ‖change‖ / ‖outputs before‖.
    pub relative: f64,
    /// The share of the change that was written, as [`Change::kept`] of the outputs.
    pub kept: f64,
    /// ‖written − wanted‖ / ‖change‖: below 1 the layer is nearer to the adapted one than to that
    /// from before.
    pub error: f64,
}

impl From<Kept> for OutputChange {
    fn from(kept: Kept) -> Self {
        Self {
            relative: kept.relative,
            kept: kept.share,
            error: kept.error,
        }
    }
}

/// What adapters change of a weight, and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Change {
    /// ‖rotated − before‖ (Frobenius).
    pub norm: f64,
    /// ‖rotated − before‖ / ‖before‖.
    pub relative: f64,
    /// ⟨written − before, rotated − before⟩ / ‖rotated − before‖²: 1 if all of the change was
    /// written, 0 if it was rounded away. Other errors do not count: a rounding that is as likely
    /// up as down leaves it at 1. It is 1 if nothing was to change.
    pub kept: f64,
    /// The same of the layer's outputs, where calibration data shows its inputs.
    pub outputs: Option<OutputChange>,
}

impl Change {
    /// Compares three weights of one shape for a layer with the inputs `inputs`.
    pub(super) fn on(
        inputs: Option<&Hessian>,
        before: &Matrix,
        rotated: &Matrix,
        written: &Matrix,
    ) -> Self {
        let outputs = inputs.and_then(|inputs| inputs.kept(before, rotated, written));
        Self {
            outputs: outputs.map(OutputChange::from),
            ..Self::new(before, rotated, written)
        }
    }

    /// Compares three weights of one shape.
    pub(super) fn new(before: &Matrix, rotated: &Matrix, written: &Matrix) -> Self {
        let [size, squares, product] = sums([before, rotated, written], |values| {
            let [before, rotated, written] = values.map(f64::from);
            let change = rotated - before;
            [
                before * before,
                change * change,
                (written - before) * change,
            ]
        });
        if squares == 0.0 {
            return Self {
                norm: 0.0,
                relative: 0.0,
                kept: 1.0,
                outputs: None,
            };
        }
        Self {
            norm: squares.sqrt(),
            relative: (squares / size).sqrt(),
            kept: product / squares,
            outputs: None,
        }
    }

    /// The share that several layers together kept. Where outputs of some were measured, each layer
    /// counts by how large its change is beside what it had before (`relative²`), since inputs differ
    /// in size between layers; else the layers' weights are taken as one. What goes beyond the change
    /// counts as what is missing: see [`share_of`].
    pub(super) fn kept_by_all<'a>(changes: impl Iterator<Item = &'a Self> + Clone) -> f64 {
        if changes.clone().all(|change| change.outputs.is_none()) {
            return Self::kept_by_weights(changes);
        }
        let (mut kept, mut sizes) = (0.0, 0.0);
        for change in changes {
            let (share, relative) = match change.outputs {
                Some(outputs) => (outputs.kept, outputs.relative),
                None => (change.kept, change.relative),
            };
            kept += share * relative.powi(2);
            sizes += relative.powi(2);
        }
        share_of(kept, sizes)
    }

    /// The share that several weights together kept: that of one weight made of all of them.
    pub(super) fn kept_by_weights<'a>(changes: impl Iterator<Item = &'a Self>) -> f64 {
        let (mut kept, mut squares) = (0.0, 0.0);
        for change in changes {
            kept += change.kept * change.norm.powi(2);
            squares += change.norm.powi(2);
        }
        share_of(kept, squares)
    }
}

/// The share `kept / all` of a change. Where rounding errors are larger than the change they can go its
/// way several times: 1.3 is as far from all of it as 0.7, and counts as that.
fn share_of(kept: f64, all: f64) -> f64 {
    let share = if all == 0.0 { 1.0 } else { kept / all };
    if share > 1.0 { 2.0 - share } else { share }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(values: [f32; 4]) -> Matrix {
        Matrix::new(values.into(), [2, 2])
    }

    #[test]
    fn a_change_is_kept_as_far_as_the_written_weight_goes_its_way() {
        let before = matrix([4.0, 0.0, 3.0, 0.0]);
        let rotated = matrix([4.0, 2.0, 3.0, 0.0]);
        let kept = |written| Change::new(&before, &rotated, &matrix(written)).kept;
        assert_eq!(kept(rotated.values.clone().try_into().unwrap()), 1.0);
        assert_eq!(kept(before.values.clone().try_into().unwrap()), 0.0);
        assert_eq!(kept([4.0, 1.0, 3.0, 0.0]), 0.5);
        // Errors across the change and changes beyond it.
        assert_eq!(kept([4.5, 2.0, 3.0, -7.0]), 1.0);
        assert_eq!(kept([4.0, -2.0, 3.0, 0.0]), -1.0);
        let change = Change::new(&before, &rotated, &before);
        assert_eq!((change.norm, change.relative), (2.0, 0.4));
        // What goes beyond the change is not kept.
        let beyond = Change::new(&before, &rotated, &matrix([4.0, 5.0, 3.0, 0.0]));
        assert_eq!(beyond.kept, 2.5);
        assert_eq!(Change::kept_by_all([&beyond].into_iter()), -0.5);
        let none = Change::new(&before, &before, &rotated);
        assert_eq!((none.norm, none.kept), (0.0, 1.0));
        assert_eq!(Change::kept_by_all([&none].into_iter()), 1.0);
    }

    #[test]
    fn layers_together_are_one_large_layer() {
        let small = Change::new(
            &matrix([1.0; 4]),
            &matrix([2.0, 1.0, 1.0, 1.0]),
            &matrix([2.0, 1.0, 1.0, 1.0]),
        );
        let large = Change::new(&matrix([1.0; 4]), &matrix([3.0; 4]), &matrix([1.0; 4]));
        let both = Change::kept_by_all([&small, &large].into_iter());
        assert_eq!(both, 1.0 / 17.0);
    }
}
