//! What a backend can do.

use crate::layer_kind::LayerKind;

/// What a backend can do; shown by `qoft backends`, and demanded by the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// Adapters train on its layers.
    pub train: bool,
    /// Its layers can be written as dense weights.
    pub dequantize: bool,
    /// Changed weights of a layer can be quantized into its format again.
    pub requantize: bool,
    /// Dense weights can be quantized into its format, with given settings.
    pub quantize: bool,
    /// Its layers are plain floats: there is nothing to dequantize.
    pub dense: bool,
    /// Libraries read experts in its format where files have the tensors of all of them together.
    pub together: bool,
    /// Kinds of layers that it loads.
    pub layers: &'static [LayerKind],
}

impl Capabilities {
    /// Reads linear layers, trains on them and makes them dense.
    pub const LINEAR: Self = Self {
        train: true,
        dequantize: true,
        requantize: false,
        quantize: false,
        dense: false,
        together: false,
        layers: &[LayerKind::Linear],
    };

    /// The same, and changed weights can be written.
    #[must_use]
    pub const fn and_requantize(self) -> Self {
        Self {
            requantize: true,
            ..self
        }
    }

    /// The same, and dense weights can be quantized.
    #[must_use]
    pub const fn and_quantize(self) -> Self {
        Self {
            quantize: true,
            ..self
        }
    }

    /// The same, of layers that are plain floats.
    #[must_use]
    pub const fn of_dense(self) -> Self {
        Self {
            dense: true,
            ..self
        }
    }

    /// The same, and libraries read experts whose tensors are together.
    #[must_use]
    pub const fn and_together(self) -> Self {
        Self {
            together: true,
            ..self
        }
    }

    /// The same, but adapters cannot train.
    #[must_use]
    pub const fn without_train(self) -> Self {
        Self {
            train: false,
            ..self
        }
    }

    /// The same, but layers cannot be made dense.
    #[must_use]
    pub const fn without_dequantize(self) -> Self {
        Self {
            dequantize: false,
            ..self
        }
    }

    /// The same for other kinds of layers.
    #[must_use]
    pub const fn with_layers(self, layers: &'static [LayerKind]) -> Self {
        Self { layers, ..self }
    }
}
