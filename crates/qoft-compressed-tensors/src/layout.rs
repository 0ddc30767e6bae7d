//! A layer's tensors: which of the library's formats they are, and what they have in common.

use qoft_scheme::{Dtype, LayerSource, Result};

use crate::config::Config;
use crate::floats::FloatLayer;
use crate::integers::IntegerLayer;
use crate::tensors::{GLOBAL, PACKED, SCALE, SHAPE, WEIGHT};

/// Names that only sparse weights have, which are refused.
const SPARSE: [&str; 4] = ["compressed", "bitmask", "weight.compressed", "scale_packed"];

/// A layer, checked.
pub enum CtLayer {
    /// Integers.
    Integers(IntegerLayer),
    /// Floats of 8 or 4 bits.
    Floats(FloatLayer),
}

/// Whether a layer is of the scheme.
pub fn claims(layer: &LayerSource) -> bool {
    let stored = layer.get(WEIGHT).map(|weight| weight.dtype());
    let compressed = matches!(stored, Some(Dtype::I8 | Dtype::F8_E4M3));
    let scaled = layer.has(SCALE);
    compressed || scaled || layer.has(PACKED) || SPARSE.iter().any(|name| layer.has(name))
}

impl CtLayer {
    /// Finds a layer's tensors. Their names and dtypes say which format it is, so that a mixed
    /// checkpoint needs no list of them.
    ///
    /// # Errors
    /// If one is missing or does not fit the others, or the format is not supported.
    pub fn parse(layer: &LayerSource, config: &Config) -> Result<Self> {
        if let Some(name) = SPARSE.iter().find(|name| layer.has(name)) {
            let reason = format!("`{name}`: sparse weights are not supported");
            return Err(layer.error(reason));
        }
        let scheme = config.scheme(layer)?;
        if let Some(packed) = layer.get(PACKED) {
            return match packed.dtype() {
                Dtype::U8 => Ok(Self::Floats(FloatLayer::pairs(layer, scheme)?)),
                _ => Ok(Self::Integers(IntegerLayer::words(layer, config, scheme)?)),
            };
        }
        // What goes with words, without them.
        if layer.has(SHAPE) || layer.has(GLOBAL) {
            layer.tensor(PACKED)?;
        }
        let weight = layer.tensor(WEIGHT)?;
        match weight.dtype() {
            Dtype::I8 => Ok(Self::Integers(IntegerLayer::bytes(layer, scheme)?)),
            _ if weight.float_format().is_ok() => {
                let reason = "a plain weight beside scales: it was saved without being compressed; \
                              save it with the library's compressor";
                Err(layer.error(reason))
            }
            _ => Ok(Self::Floats(FloatLayer::bytes(layer, scheme)?)),
        }
    }
}
