//! FP8 checkpoints of Intel Neural Compressor: weights and inputs of linear layers are 8-bit
//! floats.
//!
//! The library writes them for Gaudi accelerators, and on a CPU for its QDQ mode, with other
//! names. `config.json` has no `quant_method`; a layer is recognized by its tensors. Checkpoints
//! with `weight_scale` or `weight_scale_inv` are other formats.

mod cards;
mod config;
mod input;
mod layout;
mod merge;
mod numbers;
mod quantize;
mod requantize;
mod split;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Keys, LayerSource, LoadedLinear, NewTensor, ParsedLayer, Purpose,
    QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    register_backend,
};

pub use config::DynamicMethod;
pub use input::{DynamicInput, StaticInput, StaticSteps};

use config::IncConfig;
use layout::{IncLayer, Mode};
use quantize::ToInc;

/// Layers of Intel Neural Compressor.
///
/// Their input is rounded to 8-bit floats as part of the forward; the gradient passes unchanged.
/// A Gaudi 2 uses E4M3 numbers up to 240 only, and a file does not say where it was made: with the
/// option `inc-fp8.gaudi2=true` inputs are clamped, and weights are quantized, as that device does.
///
/// Dense weights are quantized as for a Gaudi 3, with scales of inputs that are found while the model runs
/// (`dynamic_quantization`): fixed ones are measured, which is not done here.
#[derive(Debug, Clone, Copy)]
pub struct IncFp8;

/// The registration of [`IncFp8`], at PEFT's place.
pub static REGISTRATION: Registration = Registration::new(&IncFp8).at(800);

register_backend!(REGISTRATION);

/// Clamp inputs to the range of a Gaudi 2.
const GAUDI2: &str = "gaudi2";

impl QuantBackend for IncFp8 {
    fn name(&self) -> &'static str {
        "inc-fp8"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().and_quantize()
    }

    fn options(&self) -> &'static [&'static str] {
        &[GAUDI2]
    }

    fn config_files(&self) -> &'static [&'static str] {
        &["quantization_config.json"]
    }

    fn open(
        &self,
        checkpoint: &Checkpoint,
        options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>> {
        let keys = Keys::quantization(checkpoint, self.config_files())?;
        Ok(Some(Box::new(Opened {
            is_named: config::is_inc(&keys),
            config: IncConfig::new(&keys, options.flag(GAUDI2)?),
        })))
    }

    fn settings(&self) -> &'static [&'static str] {
        &quantize::SETTINGS
    }

    fn known_by(&self) -> &'static [&'static str] {
        &["fp8_config"]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToInc::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint that may have layers of the scheme.
struct Opened {
    /// The configuration says that it has.
    is_named: bool,
    config: IncConfig,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        let names: Vec<&str> = layer.suffixes().map(cards::without_rank).collect();
        let any = |wanted: &[&str]| names.iter().any(|name| wanted.contains(name));
        if any(&["weight_scale", "weight_scale_inv"]) {
            return false;
        }
        any(&Mode::ALL.map(Mode::weight_scale))
            || cards::has_fp8_weight(layer)
                && (any(&Mode::ALL.map(Mode::input_scale))
                    || any(&[input::SCALE_INV])
                    || self.is_named)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        Ok(Box::new(IncLayer::parse(layer, &self.config)?))
    }
}

impl ParsedLayer for IncLayer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        let loaded = LoadedLinear::new(self.packed()?);
        Ok(loaded
            .with_bias(self.bias.clone())
            .with_input_quantizer(Some(self.quantizer.clone()?)))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
