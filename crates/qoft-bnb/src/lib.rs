//! bitsandbytes checkpoints: 4-bit nf4 and fp4, and LLM.int8.
//!
//! Two backends, `bnb-8bit` and `bnb-4bit`, as PEFT has two dispatchers. A layer is recognized
//! by its tensors, not by `config.json`: checkpoints mix quantized and dense layers.

mod config;
mod grid;
mod input;
mod layout;
mod quantize;
mod requantize;
mod stored_scales;
mod tables;

use std::sync::Arc;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Deferred, Keys, LayerSource, LoadedLinear, NewTensor, ParsedLayer,
    Purpose, QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    register_backend,
};

pub use config::{BlobDtype, QuantState, Settings4Bit};
pub use input::OutlierInt8;

use config::{CommonSettings, THRESHOLD, threshold};
use layout::{EightBit, FourBit};
use quantize::{To4Bit, To8Bit};

/// nf4 and fp4 layers, with or without double quantization.
///
/// Dense weights are quantized by the keys that transformers writes: `bnb_4bit_quant_type`,
/// `bnb_4bit_use_double_quant` and `bnb_4bit_quant_storage`, and by `blocksize`, see
/// [`Settings4Bit`].
#[derive(Debug, Clone, Copy)]
pub struct Bnb4Bit;

/// LLM.int8 layers.
///
/// They compute with dequantized weights, as the reference does in training. With the option
/// `bnb-8bit.int8_activations=true` the input is quantized too, with outlier columns left
/// alone, as the reference does in evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Bnb8Bit;

/// The registration of [`Bnb8Bit`], at PEFT's place.
pub static REGISTRATION_8BIT: Registration = Registration::new(&Bnb8Bit).at(100);
/// The registration of [`Bnb4Bit`], at PEFT's place.
pub static REGISTRATION_4BIT: Registration = Registration::new(&Bnb4Bit).at(200);

register_backend!(REGISTRATION_8BIT);
register_backend!(REGISTRATION_4BIT);

/// Quantize activations as the reference does in evaluation.
const INT8_ACTIVATIONS: &str = "int8_activations";

impl QuantBackend for Bnb4Bit {
    fn name(&self) -> &'static str {
        "bnb-4bit"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().and_quantize()
    }

    fn open(&self, _: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        Ok(Some(Box::new(Opened4Bit)))
    }

    fn settings(&self) -> &'static [&'static str] {
        &[
            "bnb_4bit_quant_type",
            "bnb_4bit_use_double_quant",
            "bnb_4bit_quant_storage",
            "bnb_4bit_compute_dtype",
            "blocksize",
        ]
    }

    fn known_by(&self) -> &'static [&'static str] {
        &config::LOAD
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        let Some(common) = CommonSettings::read(settings, true)? else {
            return Ok(None);
        };
        let settings = Settings4Bit::read(settings)?;
        Ok(Some(Box::new(To4Bit { common, settings })))
    }
}

/// A checkpoint that may have 4-bit layers; each describes itself.
struct Opened4Bit;

impl Scheme for Opened4Bit {
    fn claim(&self, layer: &LayerSource) -> bool {
        layer.has("weight.quant_map")
            || layer.suffixes().any(|s| s.starts_with(config::QUANT_STATE))
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        Ok(Box::new(FourBit::parse(layer)?))
    }
}

impl ParsedLayer for FourBit {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::new(self.packed(purpose)?))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::four_bit(self, weight, how)
    }
}

impl QuantBackend for Bnb8Bit {
    fn name(&self) -> &'static str {
        "bnb-8bit"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().and_quantize()
    }

    fn options(&self) -> &'static [&'static str] {
        &[INT8_ACTIVATIONS]
    }

    fn open(
        &self,
        checkpoint: &Checkpoint,
        options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>> {
        let keys = Keys::quantization(checkpoint, self.config_files())?;
        let threshold = match options.flag(INT8_ACTIVATIONS)? {
            true => threshold(&keys).map(Some),
            false => Ok(None),
        };
        let threshold = threshold.into();
        Ok(Some(Box::new(Opened8Bit { threshold })))
    }

    fn settings(&self) -> &'static [&'static str] {
        &[THRESHOLD]
    }

    fn known_by(&self) -> &'static [&'static str] {
        &config::LOAD
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        let Some(common) = CommonSettings::read(settings, false)? else {
            return Ok(None);
        };
        threshold(settings)?;
        Ok(Some(Box::new(To8Bit { common })))
    }
}

/// A checkpoint that may have int8 layers.
struct Opened8Bit {
    /// Inputs of at least this magnitude are outliers; `None` where inputs are not quantized.
    threshold: Deferred<Option<f32>>,
}

impl Scheme for Opened8Bit {
    fn claim(&self, layer: &LayerSource) -> bool {
        layer.has("SCB")
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let threshold = *self.threshold.get()?;
        let quantizer = threshold.map(|threshold| Arc::new(OutlierInt8 { threshold }));
        Ok(Box::new(EightBit::parse(layer, quantizer)?))
    }
}

impl ParsedLayer for EightBit {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        let quantizer = self.quantizer.clone();
        let loaded = LoadedLinear::new(self.packed()?);
        Ok(loaded.with_input_quantizer(quantizer.map(|quantizer| quantizer as _)))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::eight_bit(weight, how)
    }
}
