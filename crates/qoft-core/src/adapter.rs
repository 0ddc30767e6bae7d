//! Adapters: what a trainable rotation is, and what one layer has of them.

mod layer;
mod merge;
mod own;
mod slot;

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

use crate::ops::Traced;
pub use layer::Adapters;
pub use own::{BIAS, LayerTensor, OwnTensor, WEIGHT};
pub use slot::AdapterSlot;

/// A family of trainable rotations of a layer's input.
///
/// Whatever its mathematics, an adapter owns a list of matrices; that is how optimizers, files
/// and devices see it.
pub trait OftAdapter: Debug + Send + Sync + 'static {
    /// Rotates the rows of `x`, `[rows, in_features]`.
    ///
    /// Whether this is training is seen by the parameters being on an autodiff device, as
    /// Burn's own dropout does it.
    fn forward(&self, x: Traced<2>) -> Tensor<2>;

    /// Turns rows of a weight instead, `[rows, in_features]`: the product with the inverse of a
    /// rotation that is orthogonal, its transpose. A layer with weight `W · Rᵀ` and no adapter
    /// computes what one with weight `W` and this adapter does.
    fn rotate_weight(&self, rows: Tensor<2>) -> Tensor<2>;

    /// As [`Self::rotate_weight`], for layers that compute with the turned weight: a family may
    /// leave out parts of the rotation in training.
    fn forward_weight(&self, rows: Tensor<2>) -> Tensor<2> {
        self.rotate_weight(rows)
    }

    /// Turns rows back from [`Self::forward`]; `None` if the rotation has no inverse. What stands
    /// here is right for rotations that are orthogonal.
    fn unrotate(&self, rows: Tensor<2>) -> Option<Tensor<2>> {
        Some(self.rotate_weight(rows))
    }

    /// As [`Self::unrotate`], from [`Self::rotate_weight`].
    fn unrotate_weight(&self, rows: Tensor<2>) -> Option<Tensor<2>> {
        Some(self.forward(rows.into()))
    }

    /// The largest `‖RᵀR − I‖` (Frobenius) of a block: how far the rotation is from an orthogonal
    /// one. What stands here is right for families that are orthogonal by construction.
    fn orthogonality_error(&self) -> f64 {
        0.0
    }

    /// The parameters, each with its name below the layer in an adapter file.
    fn params(&self) -> Vec<NamedParam<'_>>;

    /// Replaces the parameters, in the order of [`Self::params`].
    fn set_params(&mut self, params: Vec<Param<Tensor<2>>>);

    /// Brings the parameters back to where the family allows them; called before each training
    /// step.
    fn constrain(&mut self) {}

    /// A copy. What it draws at random is what the original would draw next, so that gradient
    /// checkpointing can compute a block twice.
    fn boxed_clone(&self) -> Box<dyn OftAdapter>;
}

/// A parameter with its name, such as `oft_R.weight`.
#[derive(Debug)]
pub struct NamedParam<'a> {
    /// Name below the layer's path.
    pub name: &'static str,
    /// The parameter.
    pub param: &'a Param<Tensor<2>>,
}

/// Identifies a parameter of an adapter of the layer at `path`: the same in every run, so that
/// saved optimizer states find their parameters.
pub fn param_id(adapter: &str, path: &str, param: &str) -> ParamId {
    let mut hasher = DefaultHasher::new();
    (adapter, path, param).hash(&mut hasher);
    ParamId::from(hasher.finish())
}

/// A parameter with these values, which trains if `device` is an autodiff device.
///
/// # Panics
/// If the number of values does not fit the shape.
pub fn parameter(
    id: ParamId,
    values: Vec<f32>,
    shape: [usize; 2],
    device: &Device,
) -> Param<Tensor<2>> {
    let tensor = Tensor::from_data(TensorData::new(values, shape), device);
    let tensor = if device.is_autodiff() {
        tensor.require_grad()
    } else {
        tensor
    };
    Param::initialized(id, tensor)
}
