//! EETQ checkpoints: 8-bit weights with a scale for each output channel.
//!
//! EETQ stores a weight in the order in which the matrix product of one kind of GPU reads it, and
//! nowhere writes down which kind that is. The order is recognized by the codes, see
//! [`Layout`], or given as the option `eetq.layout=sm80`, `sm70` or `plain`.

mod config;
mod detect;
mod layout;
mod place;
mod requantize;
mod stored;

use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{
    Capabilities, Dtype, LayerSource, LoadOptions, LoadedLinear, Matrix, NewTensor, QuantBackend,
    Registration, RequantizeOptions, Result, register_backend,
};

pub use stored::Layout;

/// EETQ layers, written by transformers or by EETQ itself.
#[derive(Debug, Clone, Copy)]
pub struct Eetq;

/// The registration of [`Eetq`].
pub static REGISTRATION: Registration = Registration {
    order: 300,
    backend: &Eetq,
};

register_backend!(REGISTRATION);

/// The order of a stored weight's bytes.
const LAYOUT: &str = "layout";

impl QuantBackend for Eetq {
    fn name(&self) -> &'static str {
        "eetq"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dtypes: &[FloatFormat::F16, FloatFormat::F32],
            requantize: true,
            ..Capabilities::LINEAR
        }
    }

    fn options(&self) -> &'static [&'static str] {
        &[LAYOUT]
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        let codes = |name| layer.get(name).is_some_and(|t| t.dtype() == Dtype::I8);
        layer.has(layout::SCALES) || config::is_eetq(layer) && layout::CODES.into_iter().any(codes)
    }

    fn load(&self, layer: &LayerSource, options: &LoadOptions) -> Result<LoadedLinear> {
        config::check(layer)?;
        let layout = options
            .backend
            .choice(self.name(), LAYOUT, &Layout::NAMES)?;
        layout::load(self, layer, layout)
    }

    fn requantize(
        &self,
        layer: &LayerSource,
        weight: &Matrix,
        options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        let layout = options
            .backend
            .choice(self.name(), LAYOUT, &Layout::NAMES)?;
        requantize::requantize(self, layer, weight, options, layout)
    }
}
