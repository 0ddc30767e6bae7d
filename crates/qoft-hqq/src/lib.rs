//! HQQ checkpoints: 1 to 8 bits with a scale and a zero point for each group.
//!
//! Layers describe themselves: what the library keeps as numbers and strings is stored as tensors
//! beside the codes. `config.json` is not needed, and the library's own files say nothing there.

mod config;
mod layout;
mod quantize;
mod repack;
mod requantize;
mod solve;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Keys, LayerSource, LoadedLinear, NewTensor, ParsedLayer, Purpose,
    QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    register_backend,
};

pub use config::{Axis, LayerConfig, Packing};

use layout::HqqLayer;
use quantize::ToHqq;

/// Layers with `W_q`, written by hqq itself or by transformers.
///
/// The library computes with the weights that it dequantizes, so [`Purpose`] changes nothing.
///
/// Dense weights are quantized by the keys of the library's `BaseQuantizeConfig`: `nbits`,
/// `group_size`, `axis`, `optimize`, `round_zero`, and `view_as_float`, inside
/// `quant_config.weight_quant_params` as transformers writes them, or alone.
#[derive(Debug, Clone, Copy)]
pub struct Hqq;

/// The registration of [`Hqq`], at PEFT's place.
pub static REGISTRATION: Registration = Registration::new(&Hqq).at(700);

register_backend!(REGISTRATION);

impl QuantBackend for Hqq {
    fn name(&self) -> &'static str {
        "hqq"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().and_quantize()
    }

    fn open(&self, checkpoint: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        // Others have codes of this name, too; the library's own files name no method.
        let other = Keys::quantization(checkpoint, &[])?.is_of_another(&["hqq"]);
        Ok((!other).then(|| Box::new(Opened) as _))
    }

    fn settings(&self) -> &'static [&'static str] {
        &[
            "nbits",
            "group_size",
            "axis",
            "optimize",
            "round_zero",
            "view_as_float",
        ]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToHqq::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint that may have layers of the scheme; each describes itself.
struct Opened;

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        let names = ["nbits", "group_size", "axis"];
        layer.has("W_q") || names.iter().all(|name| layer.has(name))
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        Ok(Box::new(HqqLayer::parse(layer)?))
    }
}

impl ParsedLayer for HqqLayer {
    fn shape(&self) -> [usize; 2] {
        self.config.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::new(self.packed()?))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
