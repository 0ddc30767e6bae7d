//! BitNet b1.58 checkpoints (`quant_method: "bitnet"`), as transformers packs and reads them.
//!
//! Weights are −1, 0 or 1 with one scale for the whole matrix, four of them in a byte. A layer rounds
//! its input to 8-bit integers, one scale for each token, wherever it runs.

mod config;
mod input;
mod layout;

use qoft_core::{
    Capabilities, Checkpoint, Dtype, Keys, LayerSource, ParsedLayer, QuantBackend, Registration,
    Result, Scheme, SchemeOptions, register_backend,
};

use config::Scale;
use layout::BitLayer;

/// Layers of ternary weights.
#[derive(Debug, Clone, Copy)]
pub struct BitNet;

/// The registration of [`BitNet`].
pub static REGISTRATION: Registration = Registration::new(&BitNet);

register_backend!(REGISTRATION);

impl QuantBackend for BitNet {
    fn name(&self) -> &'static str {
        "bitnet"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR
    }

    fn open(
        &self,
        checkpoint: &Checkpoint,
        _options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>> {
        let keys = Keys::quantization(checkpoint, &[])?;
        if !config::is_bitnet(&keys) {
            return Ok(None);
        }
        config::refuse_online(&keys)?;
        let scale = config::scale(&keys);
        Ok(Some(Box::new(Opened { scale })))
    }
}

/// The scheme on a checkpoint.
struct Opened {
    /// What stored scales stand for.
    scale: Result<Scale>,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        let weight = layer.get(layout::WEIGHT);
        layer.has(layout::SCALE) || weight.is_some_and(|weight| weight.dtype() == Dtype::U8)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let scale = self.scale.clone()?;
        Ok(Box::new(BitLayer::parse(layer, scale)?))
    }
}
