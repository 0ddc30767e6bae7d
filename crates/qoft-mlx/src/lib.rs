//! Checkpoints of mlx-lm, as mlx-community publishes them: affine codes of 1 to 8 bits, and MXFP4,
//! MXFP8 and NVFP4 in MLX's arrangement. Embedding tables are quantized, too.

mod config;
mod layout;
mod quantize;
mod requantize;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Keys, LayerKind, LayerSource, LoadedLinear, NewTensor, ParsedLayer,
    Purpose, QuantBackend, Quantizer, Registration, Requantize, Result, Scheme, SchemeOptions,
    register_backend,
};

use config::MlxConfig;
use layout::MlxLayer;
use quantize::ToMlx;

/// Layers with words of codes and `scales`.
///
/// The library computes with the weights that it dequantizes, so [`Purpose`] changes nothing.
///
/// Dense weights are quantized by the keys `group_size`, `bits` and `mode`; an object with these keys
/// under the path of a module is for that module, and `false` there leaves it dense.
#[derive(Debug, Clone, Copy)]
pub struct Mlx;

/// The registration of [`Mlx`].
pub static REGISTRATION: Registration = Registration::new(&Mlx).at(1200);

register_backend!(REGISTRATION);

impl QuantBackend for Mlx {
    fn name(&self) -> &'static str {
        "mlx"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR
            .and_requantize()
            .and_quantize()
            .with_layers(&[LayerKind::Linear, LayerKind::Embedding])
    }

    fn open(&self, checkpoint: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        Ok(MlxConfig::find(checkpoint)?.map(|config| Box::new(Opened { config }) as _))
    }

    fn settings(&self) -> &'static [&'static str] {
        &[config::GROUP_SIZE, config::BITS, config::MODE]
    }

    fn known_by(&self) -> &'static [&'static str] {
        &[config::MODE]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToMlx::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint that may have layers of the scheme.
struct Opened {
    config: MlxConfig,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        MlxLayer::claims(layer)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        Ok(Box::new(MlxLayer::parse(layer, &self.config)?))
    }
}

impl ParsedLayer for MlxLayer {
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
