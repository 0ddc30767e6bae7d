//! What a layer with adapters is.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::Tensor;
use qoft_kernels::{ComputeDtype, Matrix};

use crate::adapter::{Adapters, LayerTensor};
use crate::frozen::Mergeable;
use qoft_scheme::LayerKind;

/// Sees what a layer is applied to.
pub trait InputObserver: Debug + Send + Sync {
    /// Input of the layer before its adapters, `[rows, in_features]`.
    fn observe(&self, rows: &Tensor<2>);
}

/// The filters of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Height and width.
    pub size: [usize; 2],
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl Filter {
    /// Filters of `[height, width]`.
    pub fn new(size: [usize; 2], groups: usize) -> Self {
        Self { size, groups }
    }
}

/// A frozen layer with adapters.
pub trait Layer: Debug + Send + Sync {
    /// What kind of layer it is.
    fn kind(&self) -> LayerKind;

    /// Features that a rotation turns: columns of [`Self::base_weight`].
    fn in_features(&self) -> usize;

    /// Rows of [`Self::base_weight`]: features of the output, or the entries of a table.
    fn out_features(&self) -> usize;

    /// What a convolution sees at once; other layers have none.
    fn filter(&self) -> Option<Filter> {
        None
    }

    /// The name of the parameter that the weight is in transformers' model, or is a part of, where it is
    /// no module there: experts are parts of two parameters, and PEFT's rules for modules do not see
    /// them.
    fn parameter(&self) -> Option<&str> {
        None
    }

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

    /// The weight that adapters are multiplied into; none where a merged adapter goes on to compute.
    fn mergeable(&self) -> Option<&dyn Mergeable>;

    /// As [`Self::mergeable`], to change it.
    fn mergeable_mut(&mut self) -> Option<&mut dyn Mergeable>;

    /// Lets products with the weight be computed in this dtype from now on. Layers that multiply no rows with
    /// a packed weight compute as before.
    fn set_compute_dtype(&mut self, _dtype: ComputeDtype) {}

    /// Lets an observer see all input from now on; `None` ends that. Layers that do not multiply
    /// rows of their input with a matrix have nothing to show.
    fn observe_inputs(&mut self, _observer: Option<Arc<dyn InputObserver>>) {}
}
