//! MXFP4 as transformers reads it for gpt-oss: every parameter is a tensor of blocks and one of scales.
//!
//! Linear layers are read, trained and written; the experts of an architecture that is known are some, too. Of
//! another one the weights of experts are one parameter of a mixture: they can be made dense, and merges keep
//! them as they are.

mod config;
mod layout;
mod quantize;
mod requantize;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Keys, LayerSource, LoadedLinear, NewTensor, PackedParameter,
    ParsedLayer, Purpose, QuantBackend, Quantizer, Registration, Requantize, Result, Scheme,
    SchemeOptions, register_backend,
};

use layout::Packed;
use quantize::ToMxfp4;

/// Layers with `weight_blocks` and `weight_scales`.
///
/// Dense weights are quantized without settings, but for the list `modules_to_not_convert`.
#[derive(Debug, Clone, Copy)]
pub struct Mxfp4;

/// The registration of [`Mxfp4`].
pub static REGISTRATION: Registration = Registration::new(&Mxfp4).at(1400);

register_backend!(REGISTRATION);

impl QuantBackend for Mxfp4 {
    fn name(&self) -> &'static str {
        config::METHOD
    }

    fn capabilities(&self) -> Capabilities {
        let linear = Capabilities::LINEAR.and_requantize();
        linear.and_quantize().and_together()
    }

    fn open(&self, checkpoint: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        let keys = Keys::quantization(checkpoint, &[])?;
        Ok(match config::may_be_mxfp4(&keys) {
            true => Some(Box::new(Opened)),
            false => None,
        })
    }

    fn settings(&self) -> &'static [&'static str] {
        &[config::SKIPS]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToMxfp4::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint that may have layers of the scheme. Which ones is for the tensors to say: the list of
/// modules that stay dense was for the writer.
struct Opened;

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        Packed::claims(layer)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        Ok(Box::new(Packed::of_layer(layer)?))
    }

    fn parameter(&self, checkpoint: &Checkpoint, name: &str) -> Result<Option<PackedParameter>> {
        layout::parameter(checkpoint, name)
    }
}

impl ParsedLayer for Packed {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::new(self.matrix()?))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
