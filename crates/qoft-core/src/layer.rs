//! What a layer with adapters is.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::Tensor;
use qoft_kernels::Matrix;

use crate::adapter::{Adapters, LayerTensor};
use qoft_scheme::{LayerKind, Result};

/// Sees what a layer is applied to.
pub trait InputObserver: Debug + Send + Sync {
    /// Input of the layer before its adapters, `[rows, in_features]`.
    fn observe(&self, rows: &Tensor<2>);
}

/// A frozen layer with adapters.
pub trait Layer: Debug + Send + Sync {
    /// What kind of layer it is.
    fn kind(&self) -> LayerKind;

    /// Features that a rotation turns.
    fn in_features(&self) -> usize;

    /// The adapters.
    fn adapters(&self) -> &Adapters;

    /// The adapters, to change them.
    fn adapters_mut(&mut self) -> &mut Adapters;

    /// The frozen weight as a matrix whose rows a rotation turns, `[.., in_features]`.
    fn base_weight(&self) -> Matrix;

    /// Parameters of the frozen layer, counted as if it were not packed.
    fn base_parameters(&self) -> usize;

    /// The tensors that adapters may have values of their own for.
    fn tensors(&self) -> Vec<LayerTensor>;

    /// The values of one of [`Self::tensors`], without adapters that are not merged.
    fn values(&self, tensor: &str) -> Vec<f32>;

    /// Whether the weight is another layer's.
    fn is_tied(&self) -> bool {
        false
    }

    /// Multiplies the active adapters into the weight. Until [`Self::unmerge`] they do not
    /// compute, and can be neither activated nor deleted.
    ///
    /// # Errors
    /// If the weight gets values that are not finite; then nothing changes.
    fn merge(&mut self) -> Result<()>;

    /// Takes the merged adapters out of the weight again; they are active after it. A packed
    /// weight comes back exactly, a dense one by the inverse of each rotation.
    ///
    /// # Errors
    /// If a rotation has no inverse; then nothing changes.
    fn unmerge(&mut self) -> Result<()>;

    /// Lets an observer see all input from now on; `None` ends that. Layers that do not multiply
    /// rows of their input with a matrix have nothing to show.
    fn observe_inputs(&mut self, _observer: Option<Arc<dyn InputObserver>>) {}
}
