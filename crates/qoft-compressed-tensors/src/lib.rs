//! Checkpoints of the library compressed-tensors, which llm-compressor and others write.
//!
//! | format | weights |
//! |---|---|
//! | `pack-quantized` | integers of 1 to 8 bits in words, symmetric or with zero points |
//! | `int-quantized` | integers, one in a byte |
//! | `float-quantized`, `naive-quantized` | 8-bit floats |
//! | `nvfp4-pack-quantized`, `mxfp4-pack-quantized`, `mxfp8-quantized` | floats with scales that are small themselves |
//!
//! AutoRound's own files with floats have the same tensors.
//!
//! A layer is recognized by its tensors, and the configuration says what they mean. What it says of
//! activations and caches does not change weights: inputs are left as they are.

mod auto_round;
mod config;
mod fields;
mod floats;
mod grids;
mod integers;
mod layout;
mod quantize;
mod requantize;
mod scheme;
mod targets;
mod tensors;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Deferred, Keys, LayerSource, LoadedLinear, NewTensor, ParsedLayer,
    Purpose, QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    is_cache_scale, register_backend,
};

use config::Config;
use layout::CtLayer;
use quantize::ToCompressed;

/// Layers as the library compresses them.
///
/// The library computes with the weights that it decompresses, so [`Purpose`] changes nothing.
///
/// Dense weights are quantized by a `config_groups`, or by the keys that `weights` of a group has:
/// `num_bits`, `type`, `strategy`, `group_size`, `symmetric`, `block_structure`.
#[derive(Debug, Clone, Copy)]
pub struct CompressedTensors;

/// The registration of [`CompressedTensors`].
pub static REGISTRATION: Registration = Registration::new(&CompressedTensors).at(1000);

register_backend!(REGISTRATION);

impl QuantBackend for CompressedTensors {
    fn name(&self) -> &'static str {
        "compressed-tensors"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().and_quantize()
    }

    fn open(
        &self,
        checkpoint: &Checkpoint,
        _options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>> {
        let Some(keys) = config::keys(checkpoint)? else {
            return Ok(None);
        };
        Ok(Some(Box::new(Opened {
            config: Config::read(keys).into(),
        })))
    }

    fn settings(&self) -> &'static [&'static str] {
        &quantize::SETTINGS
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToCompressed::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint of the library.
struct Opened {
    config: Deferred<Config>,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        layout::claims(layer)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let config = self.config.get()?;
        Ok(Box::new(CtLayer::parse(layer, config)?))
    }

    fn is_beside_layers(&self, name: &str) -> bool {
        is_cache_scale(name)
    }
}

impl ParsedLayer for CtLayer {
    fn shape(&self) -> [usize; 2] {
        match self {
            Self::Integers(layer) => layer.shape,
            Self::Floats(layer) => layer.shape,
        }
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::shared(match self {
            Self::Integers(layer) => layer.packed()?,
            Self::Floats(layer) => layer.packed()?,
        }))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
