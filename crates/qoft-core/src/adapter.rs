//! Adapters: what a trainable rotation is, and what one layer has of them.

mod layer;
mod own;
mod slot;

use std::fmt::Debug;

use burn::tensor::Tensor;

use crate::ops::Traced;
use crate::param::AdapterParam;
use crate::pass::Pass;

pub use layer::Adapters;
pub use own::{BIAS, LayerTensor, OwnTensor, WEIGHT};
pub use slot::AdapterSlot;

/// A trainable rotation `R` of a layer's input, and what else a method of orthogonal fine-tuning
/// does to a layer.
///
/// The layer computes `y = out(x · R · Wᵀ) + bias`, where `out` is the [`OutputSide`], if there is one. What
/// a method does can always be said of the weight as well, see [`Self::rotate_weight`].
pub trait OftAdapter: Debug + Send + Sync + 'static {
    /// Rotates the rows of `x`, `[rows, in_features]`.
    fn forward(&self, x: Traced<2>, pass: Pass) -> Tensor<2>;

    /// What is done to the product with the weight; by default nothing.
    fn output_side(&self) -> Option<&dyn OutputSide> {
        None
    }

    /// Changes a weight, `[out_features, in_features]`, instead: `out(W · Rᵀ)`. A layer with this
    /// weight and no adapter computes what one with `weight` and this adapter does.
    fn rotate_weight(&self, weight: Tensor<2>, pass: Pass) -> Tensor<2>;

    /// Turns rows back from [`Self::forward`] outside of training; `None` if the rotation has no
    /// inverse. What stands here is right for orthogonal rotations without an output side.
    fn unrotate(&self, rows: Tensor<2>) -> Option<Tensor<2>> {
        match self.output_side() {
            None => Some(self.rotate_weight(rows, Pass::EVALUATION)),
            Some(_) => None,
        }
    }

    /// Takes [`Self::rotate_weight`] outside of training back; `None` if it has no inverse. What
    /// stands here is right for orthogonal rotations without an output side.
    fn unrotate_weight(&self, weight: Tensor<2>) -> Option<Tensor<2>> {
        match self.output_side() {
            None => Some(self.forward(weight.into(), Pass::EVALUATION)),
            Some(_) => None,
        }
    }

    /// Where the rotation stands among those of adapters that were there before.
    fn composition(&self) -> Composition;

    /// The largest `‖RᵀR − I‖` (Frobenius) of a block: how far the rotation is from an orthogonal
    /// one. What stands here is right for families that are orthogonal by construction.
    fn orthogonality_error(&self) -> f64 {
        0.0
    }

    /// The parameters.
    fn params(&self) -> Vec<&AdapterParam>;

    /// As [`Self::params`], to change them.
    fn params_mut(&mut self) -> Vec<&mut AdapterParam>;

    /// Brings the parameters back to where the family allows them; called before each training
    /// step.
    fn constrain(&mut self) {}

    /// A copy.
    fn boxed_clone(&self) -> Box<dyn OftAdapter>;
}

/// What a method does behind the weight.
pub trait OutputSide {
    /// Changes the product with the weight, `[rows, out_features]`, before the bias is added.
    fn output(&self, y: Tensor<2>) -> Tensor<2>;
}

/// Where the rotation of an adapter that is added stands among those of the others: PEFT's
/// methods differ in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Composition {
    /// Next to the weight: the input meets it last, `x · R_others · R`.
    NextToWeight,
    /// Next to the input: the input meets it first, `x · R · R_others`.
    NextToInput,
}

impl Composition {
    /// `added` one after another, each placed as `of` says: in the order in which the input meets them.
    pub fn arrange<T>(
        added: impl IntoIterator<Item = T>,
        of: impl Fn(&T) -> Self,
    ) -> impl DoubleEndedIterator<Item = T> {
        let mut arranged = std::collections::VecDeque::new();
        for item in added {
            match of(&item) {
                Self::NextToWeight => arranged.push_back(item),
                Self::NextToInput => arranged.push_front(item),
            }
        }
        arranged.into_iter()
    }
}
