//! What a scheme that quantizes dense weights implements.

use qoft_kernels::FloatFormat;
use serde_json::Value;

use crate::checkpoint::NewTensor;
use crate::dense_layer::DenseLayer;
use crate::error::Result;
use crate::grid::CodeSearch;

/// How a scheme quantizes dense weights: its settings, read and checked.
pub trait Quantizer: Send + Sync {
    /// The `quantization_config` of a checkpoint with such layers, as the scheme's library writes it.
    fn config(&self, model: &QuantizedModel) -> Value;

    /// The settings' list of modules that stay dense, see
    /// [`ModulePatterns`](crate::ModulePatterns); `None` if they have none.
    fn skips(&self) -> Option<&[String]> {
        None
    }

    /// Whether the scheme's library scales the input features of layers by calibration data before it
    /// quantizes their weights.
    fn scales_inputs(&self) -> bool {
        false
    }

    /// Quantizes a weight. `search` chooses the codes once the scales are found.
    ///
    /// Returns all tensors that such a layer has in a checkpoint, but its bias.
    ///
    /// # Errors
    /// If the settings do not fit the weight.
    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>>;
}

/// What a configuration says of the model whose layers were quantized.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct QuantizedModel<'a> {
    /// The dtype of the model.
    pub format: FloatFormat,
    /// The list of modules that stay dense, if somebody gave one.
    pub skips: Option<&'a [String]>,
    /// Module paths of the linear layers that stayed dense.
    pub dense: &'a [String],
}

impl<'a> QuantizedModel<'a> {
    /// A model of dtype `format` in which the linear layers `dense` stayed dense.
    pub fn new(format: FloatFormat, skips: Option<&'a [String]>, dense: &'a [String]) -> Self {
        Self {
            format,
            skips,
            dense,
        }
    }
}
