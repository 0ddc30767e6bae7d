//! What a quantization scheme is.

use std::sync::Arc;

use qoft_kernels::ops::InputQuantizer;
use qoft_kernels::{FloatFormat, Matrix, PackedWeight};

use crate::checkpoint::NewTensor;
use crate::error::{Error, Result};
use crate::layer_kind::LayerKind;
use crate::layer_source::LayerSource;
use crate::options::{LoadOptions, RequantizeOptions};

/// A quantization scheme: recognizes its layers in a checkpoint and loads them.
pub trait QuantBackend: Send + Sync + 'static {
    /// The name that `qoft inspect` prints and options use, such as `bnb-4bit`.
    fn name(&self) -> &'static str;

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Keys of the options that this backend understands, see [`BackendOptions`].
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the layer is stored in this scheme, judged by its tensors.
    ///
    /// Cheap, and free of side effects. A layer that is damaged but clearly of this scheme is
    /// claimed too: [`Self::load`] then says what is wrong.
    fn claim(&self, layer: &LayerSource) -> bool;

    /// Parses, validates and repacks a layer.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others, or the model's sizes.
    fn load(&self, layer: &LayerSource, options: &LoadOptions) -> Result<LoadedLinear>;

    /// Quantizes a changed weight of the layer into the scheme's format, with the layer's own
    /// settings (bits, group size, dtypes …), for backends whose capabilities say so.
    ///
    /// Returns all tensors of the layer but its bias; they take the place of those that it has.
    ///
    /// Where a scheme spreads one matrix over several layers (see [`LayerSource::sibling`]), those
    /// tensors of the others that change along are returned as well. The weights of these layers
    /// stay as they are, bit by bit. If they change too, each is written in its turn, and finds
    /// the tensors that were written before it.
    ///
    /// # Errors
    /// If the scheme, or this layer's variant of it, cannot be written.
    fn requantize(
        &self,
        layer: &LayerSource,
        _weight: &Matrix,
        _options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        Err(Error::Requantize {
            layer: layer.path().to_owned(),
            backend: self.name().to_owned(),
            reason: "this scheme cannot be written".into(),
        })
    }
}

/// What a backend can do; shown by `qoft backends`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Capabilities {
    /// Adapters train on its layers.
    pub train: bool,
    /// Its layers can be written as dense weights.
    pub dequantize: bool,
    /// Changed weights can be quantized into its format again.
    pub requantize: bool,
    /// Kinds of layers that it loads.
    pub layers: &'static [LayerKind],
    /// Dtypes of the floating-point tensors (scales, biases and the like) that it reads.
    pub dtypes: &'static [FloatFormat],
}

impl Capabilities {
    /// Reads linear layers in every float dtype; trains on them and makes them dense.
    pub const LINEAR: Self = Self {
        train: true,
        dequantize: true,
        requantize: false,
        layers: &[LayerKind::Linear],
        dtypes: &[FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16],
    };
}

/// A loaded linear layer.
#[derive(Debug, Clone)]
pub struct LoadedLinear {
    /// The weight, packed.
    pub weight: Arc<dyn PackedWeight>,
    /// `[out_features]`.
    pub bias: Option<Vec<f32>>,
    /// Quantization of the layer's input, if the scheme has one.
    pub input_quantizer: Option<Arc<dyn InputQuantizer>>,
}
