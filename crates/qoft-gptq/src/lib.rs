//! GPTQ checkpoints of AutoGPTQ and GPTQModel: 2, 3, 4 and 8 bits, zero points of both versions,
//! any assignment of input channels to groups.
//!
//! A layer is recognized by its tensors. AWQ layers have tensors of the same names; there the
//! configuration's `quant_method` decides, and without one the shapes do.

mod config;
mod layout;
mod quantize;
mod requantize;
mod version;
mod words;
mod zeros;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Deferred, Keys, LayerSource, LoadedLinear, NewTensor, ParsedLayer,
    Purpose, QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    register_backend,
};

pub use config::{GptqConfig, ModuleConfig, ZeroPoints};

use layout::{GptqLayer, Named};
use quantize::ToGptq;

/// Integers with a scale and a zero point for each group of input channels.
///
/// The library computes with the weights that it dequantizes, so [`Purpose`] changes nothing.
///
/// Dense weights are quantized by the keys `bits`, `group_size`, `sym` and `checkpoint_format`,
/// without calibration data: each weight is rounded to the nearest number of a grid that fits its
/// group.
#[derive(Debug, Clone, Copy)]
pub struct Gptq;

/// The registration of [`Gptq`], at PEFT's place.
pub static REGISTRATION: Registration = Registration::new(&Gptq).at(600);

register_backend!(REGISTRATION);

impl QuantBackend for Gptq {
    fn name(&self) -> &'static str {
        "gptq"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().and_quantize()
    }

    fn config_files(&self) -> &'static [&'static str] {
        &["quantize_config.json", "quant_config.json"]
    }

    fn open(
        &self,
        checkpoint: &Checkpoint,
        _options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>> {
        let keys = Keys::quantization(checkpoint, self.config_files())?;
        let Some(named) = Named::of(&keys) else {
            return Ok(None);
        };
        let config = GptqConfig::read(keys).map(|config| version::as_stored(checkpoint, config));
        let config = config.into();
        Ok(Some(Box::new(Opened { named, config })))
    }

    fn settings(&self) -> &'static [&'static str] {
        &[
            "bits",
            "group_size",
            "sym",
            "symmetric",
            "desc_act",
            "checkpoint_format",
        ]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToGptq::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint that may have layers of the scheme.
struct Opened {
    named: Named,
    config: Deferred<GptqConfig>,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        self.named.claims(layer)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let config = self.config.get()?;
        Ok(Box::new(GptqLayer::parse(layer, config)?))
    }
}

impl ParsedLayer for GptqLayer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::shared(self.packed()?))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
