//! Fine-grained FP8 checkpoints (`quant_method: "fp8"`), as DeepSeek V3 and Qwen3-FP8 have them.
//!
//! Weights are 8-bit floats (E4M3) with a scale for each block of rows and columns, or one for
//! the whole matrix. Inputs stay as they are: a GPU would quantize them too, but where there is
//! none, transformers computes with dequantized weights and plain inputs.

mod config;
mod layout;

use qoft_core::{
    Capabilities, LayerSource, LoadOptions, LoadedLinear, QuantBackend, Registration, Result,
    TensorView, register_backend,
};

/// FP8 layers with scales by block.
#[derive(Debug, Clone, Copy)]
pub struct BlockFp8;

/// The registration of [`BlockFp8`].
pub static REGISTRATION: Registration = Registration {
    order: 1_000,
    backend: &BlockFp8,
};

register_backend!(REGISTRATION);

impl QuantBackend for BlockFp8 {
    fn name(&self) -> &'static str {
        "block-fp8"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        // Layers that transformers left dense may have scales too, which mean nothing.
        let dense = |weight: TensorView| weight.float_format().is_ok();
        config::is_fp8(layer)
            && layer.has(layout::SCALES)
            && !layer.get(layout::WEIGHT).is_some_and(dense)
    }

    fn load(&self, layer: &LayerSource, _options: &LoadOptions) -> Result<LoadedLinear> {
        layout::load(self, layer)
    }
}
