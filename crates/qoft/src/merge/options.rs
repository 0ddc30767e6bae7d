//! How a checkpoint is merged.

use qoft_core::kernels::FloatFormat;
use qoft_core::{ClaimedLayer, Purpose, Quantization, Registry, Result};
use qoft_models::ModelFolder;

use crate::quantize::{Plan, Together};
use crate::search::LayerSearch;
use crate::write::{MaxShardSize, NewContainer};

/// What the merged checkpoint is like.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum MergeTarget<'a> {
    /// Dense weights in this format.
    Dense(FloatFormat),
    /// Every layer in the scheme that it had, with codes chosen by the search that this gives it.
    SameScheme(&'a dyn LayerSearch),
    /// All layers in this scheme, whatever they had.
    NewScheme(NewScheme<'a>),
}

/// A scheme that a merge writes a model in. What is not quantized gets the model's dtype.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct NewScheme<'a> {
    /// Backends that read what was written.
    pub registry: &'a Registry,
    /// The scheme with its settings.
    pub quantization: &'a Quantization,
    /// Gives each layer the search that chooses its codes.
    pub search: &'a dyn LayerSearch,
    /// Modules that are written dense, in place of the settings' own list, see
    /// [`ModulePatterns`](qoft_core::ModulePatterns). Without any list it is the output head. In a
    /// model of which a part is quantized, the layers that are dense stay so.
    pub skips: Option<&'a [String]>,
    /// The model's dtype, unless it is the one that its configuration names.
    pub format: Option<FloatFormat>,
}

impl<'a> NewScheme<'a> {
    /// A scheme by its settings alone.
    pub fn new(
        registry: &'a Registry,
        quantization: &'a Quantization,
        search: &'a dyn LayerSearch,
    ) -> Self {
        Self {
            registry,
            quantization,
            search,
            skips: None,
            format: None,
        }
    }

    /// What is done to the layers of a model.
    pub(super) fn plan<'b>(
        &self,
        folder: &ModelFolder,
        layers: Vec<ClaimedLayer<'b>>,
    ) -> Result<Plan<'b>> {
        let experts = match self.quantization.is_together() {
            true => Together::Quantized,
            false => Together::Dense,
        };
        Plan::new(
            folder,
            layers,
            (self.quantization, experts),
            self.skips,
            self.format,
        )
    }
}

/// How a checkpoint is merged. A [`MergeTarget`] alone is one with the defaults.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct MergeOptions<'a> {
    /// What the merged checkpoint is like.
    pub target: MergeTarget<'a>,
    /// The least share of what adapters change, over all layers, that has to be in the written
    /// weights, see [`MergeReport::change_kept`](super::MergeReport::change_kept). With less, the
    /// merge fails with [`Error::LittleKept`](qoft_core::Error::LittleKept). Not heeded where
    /// weights are written dense; with 0 everything is written.
    pub min_kept: f64,
    /// Which values weights have that are written dense: those that the model computes with
    /// ([`Purpose::Forward`], the default), or those that the scheme's own library writes.
    pub dense_values: Purpose,
    /// How large the files with tensors become.
    pub max_shard_size: MaxShardSize,
    /// The file format of dense weights, in place of a folder of safetensors.
    pub container: Option<NewContainer<'a>>,
}

impl<'a> MergeOptions<'a> {
    /// The share of the change that has to be kept unless another one is given.
    pub const MIN_KEPT: f64 = 0.5;

    /// Into `target`, with [`Self::MIN_KEPT`].
    pub fn new(target: MergeTarget<'a>) -> Self {
        Self {
            target,
            min_kept: Self::MIN_KEPT,
            dense_values: Purpose::Forward,
            max_shard_size: MaxShardSize::default(),
            container: None,
        }
    }

    /// The same with another share that has to be kept; with 0 everything is written.
    #[must_use]
    pub fn min_kept(self, min_kept: f64) -> Self {
        Self { min_kept, ..self }
    }

    /// The same with these values of dense weights.
    #[must_use]
    pub fn dense_values(self, dense_values: Purpose) -> Self {
        Self {
            dense_values,
            ..self
        }
    }

    /// The same with another size of files.
    #[must_use]
    pub fn max_shard_size(self, max_shard_size: MaxShardSize) -> Self {
        Self {
            max_shard_size,
            ..self
        }
    }

    /// The same with dense weights in a file format of its own.
    #[must_use]
    pub fn container(self, container: NewContainer<'a>) -> Self {
        Self {
            container: Some(container),
            ..self
        }
    }
}

impl<'a> From<MergeTarget<'a>> for MergeOptions<'a> {
    fn from(target: MergeTarget<'a>) -> Self {
        Self::new(target)
    }
}
