//! AWQ checkpoints of AutoAWQ and GPTQModel: 4 bits, in the layouts GEMM and GEMV.
//!
//! A layer is recognized by its tensors. GPTQ layers have tensors of the same names; there the
//! configuration's `quant_method` decides, and without one the shapes do.

mod config;
mod layout;
mod quantize;
mod requantize;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Deferred, Keys, LayerSource, LoadedLinear, NewTensor, ParsedLayer,
    Purpose, QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    register_backend,
};

pub use config::{AwqConfig, AwqVersion};

use layout::{AwqLayer, Named};
use quantize::ToAwq;

/// 4-bit integers with a scale and a zero point for each group of input channels.
///
/// The library computes with the weights that it dequantizes, so [`Purpose`] changes nothing.
///
/// Dense weights are quantized by the keys `group_size`, `zero_point` and `version`, without
/// calibration data: no channel is scaled up, and each weight is rounded to the nearest number of a
/// grid that fits its group.
#[derive(Debug, Clone, Copy)]
pub struct Awq;

/// The registration of [`Awq`], at PEFT's place.
pub static REGISTRATION: Registration = Registration::new(&Awq).at(500);

register_backend!(REGISTRATION);

impl QuantBackend for Awq {
    fn name(&self) -> &'static str {
        "awq"
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
        let config = AwqConfig::read(keys).into();
        Ok(Some(Box::new(Opened { named, config })))
    }

    fn settings(&self) -> &'static [&'static str] {
        &["bits", "group_size", "zero_point", "symmetric", "version"]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToAwq::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint that may have layers of the scheme.
struct Opened {
    named: Named,
    config: Deferred<AwqConfig>,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        self.named.claims(layer)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let config = self.config.get()?;
        if self.named.is_scaled_activation(layer) {
            let reason = "AWQ divides this activation by `scales`, which is not supported; the \
                          layer behind it is wrong without";
            return Err(layer.error(reason));
        }
        Ok(Box::new(AwqLayer::parse(layer, config)?))
    }
}

impl ParsedLayer for AwqLayer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::new(self.packed()?))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
