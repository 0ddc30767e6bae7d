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
mod requantize;
mod split;

use qoft_scheme::{
    Capabilities, LayerSource, LoadOptions, LoadedLinear, Matrix, NewTensor, QuantBackend,
    Registration, RequantizeOptions, Result, register_backend,
};

pub use input::{DynamicInput, StaticInput, StaticSteps};

use cards::Cards;
use layout::Mode;

/// Layers of Intel Neural Compressor.
///
/// Their input is rounded to 8-bit floats as part of the forward; the gradient passes unchanged.
/// A Gaudi 2 uses E4M3 numbers up to 240 only, and a file does not say where it was made: with the
/// option `inc-fp8.gaudi2=true` inputs are clamped, and weights are quantized, as that device does.
#[derive(Debug, Clone, Copy)]
pub struct IncFp8;

/// The registration of [`IncFp8`].
pub static REGISTRATION: Registration = Registration {
    order: 800,
    backend: &IncFp8,
};

register_backend!(REGISTRATION);

/// Clamp inputs to the range of a Gaudi 2.
const GAUDI2: &str = "gaudi2";

impl QuantBackend for IncFp8 {
    fn name(&self) -> &'static str {
        "inc-fp8"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            requantize: true,
            ..Capabilities::LINEAR
        }
    }

    fn options(&self) -> &'static [&'static str] {
        &[GAUDI2]
    }

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
                    || config::is_inc(layer))
    }

    fn load(&self, layer: &LayerSource, options: &LoadOptions) -> Result<LoadedLinear> {
        let gaudi2 = options.backend.flag(self.name(), GAUDI2)?;
        let cards = Cards::of(layer);
        let mode = Mode::of(&cards);
        let (weight, format) = layout::load(self, &cards, mode)?;
        let bias = cards.bias(self, weight.shape()[0])?;
        Ok(LoadedLinear {
            weight,
            bias,
            input_quantizer: Some(input::quantizer(&cards, mode, format, gaudi2)?),
        })
    }

    fn requantize(
        &self,
        layer: &LayerSource,
        weight: &Matrix,
        options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        let gaudi2 = options.backend.flag(self.name(), GAUDI2)?;
        requantize::requantize(self, layer, weight, options, gaudi2)
    }
}
