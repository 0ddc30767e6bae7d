//! Fine-grained FP8 checkpoints (`quant_method: "fp8"`), as DeepSeek V3 and Qwen3-FP8 have them.
//!
//! Weights are 8-bit floats (E4M3) with a scale for each block of rows and columns, or one for
//! the whole matrix. Inputs stay as they are: a GPU would quantize them too, but where there is
//! none, transformers computes with dequantized weights and plain inputs.

mod config;
mod layout;

use qoft_core::{
    Capabilities, Checkpoint, Keys, LayerSource, ParsedLayer, QuantBackend, Registration, Result,
    Scheme, SchemeOptions, TensorView, register_backend,
};

use layout::Fp8Layer;

/// FP8 layers with scales by block.
#[derive(Debug, Clone, Copy)]
pub struct BlockFp8;

/// The registration of [`BlockFp8`].
pub static REGISTRATION: Registration = Registration::new(&BlockFp8);

register_backend!(REGISTRATION);

impl QuantBackend for BlockFp8 {
    fn name(&self) -> &'static str {
        "block-fp8"
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
        if !config::is_fp8(&keys) {
            return Ok(None);
        }
        let blocks = config::block_size(&keys);
        Ok(Some(Box::new(Opened { blocks })))
    }
}

/// The scheme on a checkpoint.
struct Opened {
    /// Rows and columns that share a scale.
    blocks: Result<Option<[usize; 2]>>,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        // Layers that transformers left dense may have scales too, which mean nothing.
        let dense = |weight: TensorView| weight.float_format().is_ok();
        layer.has(layout::SCALES) && !layer.get(layout::WEIGHT).is_some_and(dense)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let blocks = self.blocks.clone()?;
        Ok(Box::new(Fp8Layer::parse(layer, blocks)?))
    }
}
