//! A layer with the scheme that has claimed it.

use qoft_kernels::Matrix;

use crate::backend::{LoadedLinear, ParsedLayer, QuantBackend, Requantize, Scheme};
use crate::capabilities::Capabilities;
use crate::checkpoint::{Checkpoint, NewTensor};
use crate::error::{Error, Result};
use crate::grid::CodeSearch;
use crate::layer_kind::LayerKind;
use crate::layer_source::{BIAS, LayerSource};
use crate::mapped::TensorView;
use crate::options::Purpose;

/// A layer and its owner, not yet parsed. Errors get the owner's name.
#[derive(Clone, Copy)]
pub struct ClaimedLayer<'a> {
    source: LayerSource<'a>,
    backend: &'static dyn QuantBackend,
    scheme: &'a dyn Scheme,
}

impl<'a> ClaimedLayer<'a> {
    pub(crate) fn new(
        source: LayerSource<'a>,
        backend: &'static dyn QuantBackend,
        scheme: &'a dyn Scheme,
    ) -> Self {
        Self {
            source: source.owned_by(backend.name()),
            backend,
            scheme,
        }
    }

    /// Its tensors.
    pub fn source(&self) -> LayerSource<'a> {
        self.source
    }

    /// Module path.
    pub fn path(&self) -> &'a str {
        self.source.path()
    }

    /// Name of the backend that has claimed it.
    pub fn backend(&self) -> &'static str {
        self.backend.name()
    }

    /// What the backend can do.
    pub fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// Whether it is more than plain floats.
    pub fn is_quantized(&self) -> bool {
        !self.capabilities().dense
    }

    /// The same layer in another checkpoint, in which layers were replaced.
    #[must_use]
    pub fn within<'b>(&self, checkpoint: &'b Checkpoint) -> ClaimedLayer<'b>
    where
        'a: 'b,
    {
        ClaimedLayer {
            source: self.source.within(checkpoint),
            backend: self.backend,
            scheme: self.scheme,
        }
    }

    /// Parses the layer.
    ///
    /// # Errors
    /// If its tensors are wrong, or it has another shape than the model expects.
    pub fn parse(&self) -> Result<CheckpointLayer> {
        let name = |e: Error| e.of_layer(self.path(), self.backend());
        let parsed = self.scheme.parse(&self.source).map_err(name)?;
        let shape = parsed.shape();
        match self.source.expected_shape() {
            Some(expected) if expected != shape => Err(self.source.error(format!(
                "weight of [out_features, in_features] {shape:?}, config.json says {expected:?}"
            ))),
            _ => Ok(CheckpointLayer {
                path: self.path().to_owned(),
                backend: self.backend(),
                bias: self.source.get(BIAS),
                kind: self.source.kind(),
                fan_in_fan_out: self.source.is_fan_in_fan_out(),
                shape,
                parsed,
            }),
        }
    }

    /// Parses and loads the layer.
    ///
    /// # Errors
    /// If its tensors are wrong, or it has another shape than the model expects.
    pub fn load(&self, purpose: Purpose) -> Result<LoadedLinear> {
        self.parse()?.load(purpose)
    }
}

/// A layer that its scheme has parsed, for loading it and for writing it back.
pub struct CheckpointLayer {
    path: String,
    backend: &'static str,
    shape: [usize; 2],
    kind: LayerKind,
    fan_in_fan_out: bool,
    bias: Option<TensorView>,
    parsed: Box<dyn ParsedLayer>,
}

impl CheckpointLayer {
    /// Module path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Name of the backend that has claimed it.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// `[out_features, in_features]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Loads the layer.
    ///
    /// # Errors
    /// If the tensors do not make up a weight, or the bias does not fit it.
    pub fn load(&self, purpose: Purpose) -> Result<LoadedLinear> {
        let loaded = self.parsed.load(purpose);
        let mut loaded = loaded.map_err(|e| e.of_layer(&self.path, self.backend))?;
        if loaded.bias.is_none()
            && let Some(bias) = &self.bias
        {
            let bias = bias.expect_shape(&self.shape[..1])?;
            loaded.bias = Some(bias.to_finite_f32()?);
        }
        Ok(loaded)
    }

    /// Quantizes a changed weight into the scheme's format, see [`ParsedLayer::requantize`].
    /// `checkpoint` has the layers that were written before.
    ///
    /// # Errors
    /// If the weight has another shape, or the layer cannot be written.
    pub fn requantize(
        &self,
        weight: &Matrix,
        search: &dyn CodeSearch,
        checkpoint: &Checkpoint,
    ) -> Result<Vec<NewTensor>> {
        let current = LayerSource::new(checkpoint, &self.path, Some(self.shape));
        let mut current = current.of_kind(self.kind);
        if self.fan_in_fan_out {
            current = current.fan_in_fan_out();
        }
        let current = current.owned_by(self.backend);
        let fits = match weight.shape == self.shape {
            true => Ok(()),
            false => Err(current.error(format!(
                "a weight of {:?} for one of {:?}",
                weight.shape, self.shape
            ))),
        };
        let how = Requantize::new(search, current);
        let tensors = fits.and_then(|()| self.parsed.requantize(weight, &how));
        tensors.map_err(|e| e.of_layer(&self.path, self.backend).of_writing())
    }
}
