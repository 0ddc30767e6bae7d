//! What a quantization scheme is: registered, opened on a checkpoint, and asked for layers.

use std::sync::Arc;

use qoft_kernels::ops::InputQuantizer;
use qoft_kernels::{Matrix, PackedWeight};

use crate::capabilities::Capabilities;
use crate::checkpoint::{Checkpoint, NewTensor};
use crate::error::Result;
use crate::grid::CodeSearch;
use crate::keys::Keys;
use crate::layer_source::LayerSource;
use crate::options::{Purpose, SchemeOptions};
use crate::packed_parameter::PackedParameter;
use crate::quantizer::Quantizer;

/// A quantization scheme, as a crate registers it.
pub trait QuantBackend: Send + Sync + 'static {
    /// The name that `qoft inspect` prints and options use, such as `bnb-4bit`.
    fn name(&self) -> &'static str;

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Keys of the options that this backend understands, see
    /// [`BackendOptions`](crate::BackendOptions).
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// Files beside `config.json` in which tools write this scheme's configuration, in the order
    /// in which they are looked for, see [`Keys::quantization`]. Dense checkpoints do not get them.
    fn config_files(&self) -> &'static [&'static str] {
        &[]
    }

    /// Opens the scheme on a checkpoint: what holds for the whole file is found out here, once.
    ///
    /// `None` if no layer of the checkpoint can be of this scheme, since its configuration names
    /// another one, for example. A configuration that is wrong is no error yet: the layers may be
    /// somebody else's. Keep it as a [`Deferred`](crate::Deferred) and ask for it in [`Scheme::parse`].
    ///
    /// # Errors
    /// If an option has an impossible value, or a configuration file cannot be read.
    fn open(
        &self,
        checkpoint: &Checkpoint,
        options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>>;

    /// Keys of the settings by which this backend quantizes dense weights; empty if it cannot. A
    /// `quantization_config` may have more: those that only say how a library computes.
    fn settings(&self) -> &'static [&'static str] {
        &[]
    }

    /// Keys by which a `quantization_config` that names no `quant_method` is known to be of this scheme; each
    /// of them tells. Libraries that write such configurations have some.
    fn known_by(&self) -> &'static [&'static str] {
        &[]
    }

    /// Reads the settings by which dense weights are to be quantized: a `quantization_config` as the
    /// scheme's library writes it, or some of [`Self::settings`] alone.
    ///
    /// `None` if the configuration names another scheme, or this backend quantizes nothing.
    ///
    /// # Errors
    /// If the settings are impossible or not supported.
    fn quantizer(&self, _settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(None)
    }
}

/// A scheme that was opened on a checkpoint. It does not hold the checkpoint: layers are read from
/// the one that their [`LayerSource`] has, in which a merge may have replaced some.
pub trait Scheme: Send + Sync {
    /// Whether the layer is stored in this scheme, judged by its tensors.
    ///
    /// Cheap, and free of side effects. A layer that is damaged but clearly of this scheme is
    /// claimed too: [`Self::parse`] then says what is wrong.
    fn claim(&self, layer: &LayerSource) -> bool;

    /// Finds and checks the tensors of a layer. What it stands for, its shape included, is decided
    /// here, once for loading and for writing back.
    ///
    /// The caller compares the shape with that of the model.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others, or the configuration is wrong.
    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>>;

    /// The packed parameter that the tensor `name`, which is no linear layer's, is a part of; `None` if the
    /// scheme knows of none.
    ///
    /// # Errors
    /// If its parts do not fit each other.
    fn parameter(&self, _checkpoint: &Checkpoint, _name: &str) -> Result<Option<PackedParameter>> {
        Ok(None)
    }

    /// Whether a tensor that belongs to no layer, such as the scale of a cache, means something only
    /// where the scheme's configuration stands beside it. Dense checkpoints do not get it.
    fn is_beside_layers(&self, _name: &str) -> bool {
        false
    }
}

/// A layer that was parsed.
pub trait ParsedLayer: Send + Sync {
    /// `[out_features, in_features]`.
    fn shape(&self) -> [usize; 2];

    /// Repacks the layer. The caller adds a bias that the layer has under its plain name.
    ///
    /// # Errors
    /// If the tensors do not make up a weight.
    fn load(&self, purpose: Purpose) -> Result<LoadedLinear>;

    /// Quantizes a changed weight, of the layer's shape, into the scheme's format, with the layer's
    /// own settings (bits, group size, dtypes …), for backends whose capabilities say so.
    ///
    /// Returns all tensors of the layer but its bias; they take the place of those that it has.
    ///
    /// Where a scheme spreads one matrix over several layers (see [`LayerSource::sibling`]), those
    /// tensors of the others that change along are returned as well. The weights of these layers
    /// stay as they are, bit by bit. If they change too, each is written in its turn, and finds
    /// the tensors that were written before it in [`Requantize::current`].
    ///
    /// # Errors
    /// If the scheme, or this layer's variant of it, cannot be written.
    fn requantize(&self, _weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        Err(how.current.incapable("write changed weights"))
    }
}

/// How a changed weight is written.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Requantize<'a> {
    /// Chooses the codes once the scheme has chosen its scales.
    pub search: &'a dyn CodeSearch,
    /// The layer in the checkpoint as it is now: with the layers that were written before.
    pub current: LayerSource<'a>,
}

impl<'a> Requantize<'a> {
    /// Into the layer `current`, with codes that `search` chooses.
    pub fn new(search: &'a dyn CodeSearch, current: LayerSource<'a>) -> Self {
        Self { search, current }
    }
}

/// A loaded linear layer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadedLinear {
    /// The weight, packed.
    pub weight: Arc<dyn PackedWeight>,
    /// `[out_features]`.
    pub bias: Option<Vec<f32>>,
    /// Quantization of the layer's input, if the scheme has one.
    pub input_quantizer: Option<Arc<dyn InputQuantizer>>,
}

impl LoadedLinear {
    /// A layer of this weight without a bias.
    pub fn new(weight: impl PackedWeight + 'static) -> Self {
        Self::shared(Arc::new(weight))
    }

    /// A layer of a weight that is shared.
    pub fn shared(weight: Arc<dyn PackedWeight>) -> Self {
        Self {
            weight,
            bias: None,
            input_quantizer: None,
        }
    }

    /// The same with a bias of `[out_features]`, or without.
    #[must_use]
    pub fn with_bias(self, bias: Option<Vec<f32>>) -> Self {
        Self { bias, ..self }
    }

    /// The same with a quantization of the layer's input, or without.
    #[must_use]
    pub fn with_input_quantizer(self, input_quantizer: Option<Arc<dyn InputQuantizer>>) -> Self {
        Self {
            input_quantizer,
            ..self
        }
    }
}
