//! What a scheme that quantizes dense weights implements.

use std::collections::BTreeMap;

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

    /// What the files of such a checkpoint say of their tensors, see
    /// [`Checkpoint::metadata`](crate::Checkpoint::metadata); nothing in most schemes.
    fn metadata(&self, _model: &QuantizedModel) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// The settings' list of modules that stay dense, see
    /// [`ModulePatterns`](crate::ModulePatterns); `None` if they have none.
    fn skips(&self) -> Option<&[String]> {
        None
    }

    /// Whether the settings leave a layer of `[out_features, in_features]` dense, beside those that
    /// [`Self::skips`] lists.
    ///
    /// # Errors
    /// If the settings for the layer are wrong.
    fn stays_dense(&self, _path: &str, _shape: [usize; 2]) -> Result<bool> {
        Ok(false)
    }

    /// Whether the scheme's library has nothing but experts in its format, where files have the tensors of all
    /// experts together: then all other layers stay dense.
    fn experts_alone(&self) -> bool {
        false
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
    /// The layers that are quantized.
    pub layers: &'a [QuantizedLayer],
    /// Names of all tensors that stay as they are.
    pub others: &'a [String],
}

/// A layer that is quantized.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuantizedLayer {
    /// Module path.
    pub path: String,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
}

impl QuantizedLayer {
    /// A layer of `[out_features, in_features]`.
    pub fn new(path: impl Into<String>, shape: [usize; 2]) -> Self {
        Self {
            path: path.into(),
            shape,
        }
    }
}

impl<'a> QuantizedModel<'a> {
    /// A model of dtype `format` in which the linear layers `dense` stayed dense, without its tensors.
    pub fn new(format: FloatFormat, skips: Option<&'a [String]>, dense: &'a [String]) -> Self {
        Self {
            format,
            skips,
            dense,
            layers: &[],
            others: &[],
        }
    }

    /// The same with the layers that are quantized, and the names of all tensors that stay as they are.
    #[must_use]
    pub fn with_tensors(self, layers: &'a [QuantizedLayer], others: &'a [String]) -> Self {
        Self {
            layers,
            others,
            ..self
        }
    }
}
