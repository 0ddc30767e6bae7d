//! EETQ checkpoints: 8-bit weights with a scale for each output channel.
//!
//! EETQ stores a weight in the order in which the matrix product of one kind of GPU reads it, and
//! nowhere writes down which kind that is. The order is recognized by the codes, see
//! [`ByteOrder`], or given as the option `eetq.layout=sm80`, `sm70` or `plain`.

mod config;
mod cut;
mod detect;
mod layout;
mod quantize;
mod requantize;
mod stored;

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Capabilities, Checkpoint, Deferred, Dtype, Keys, LayerSource, LoadedLinear, NewTensor,
    ParsedLayer, Purpose, QuantBackend, Quantizer, Registration, Requantize, Result, Scheme,
    SchemeOptions, TensorView, register_backend,
};

pub use stored::ByteOrder;

use layout::EetqLayer;
use quantize::ToEetq;

/// EETQ layers, written by transformers or by EETQ itself.
///
/// Dense weights are quantized as transformers stores them, in the order of bytes that most GPUs
/// use ([`ByteOrder::Sm80`]); the one setting that there is, `weights`, can only be `int8`.
#[derive(Debug, Clone, Copy)]
pub struct Eetq;

/// The registration of [`Eetq`], at PEFT's place.
pub static REGISTRATION: Registration = Registration::new(&Eetq).at(300);

register_backend!(REGISTRATION);

/// The order of a stored weight's bytes.
const LAYOUT: &str = "layout";

impl QuantBackend for Eetq {
    fn name(&self) -> &'static str {
        "eetq"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().and_quantize()
    }

    fn options(&self) -> &'static [&'static str] {
        &[LAYOUT]
    }

    fn open(
        &self,
        checkpoint: &Checkpoint,
        options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>> {
        let order = options.choice(LAYOUT, &ByteOrder::NAMES)?;
        let keys = Keys::quantization(checkpoint, self.config_files())?;
        let is_named = config::is_eetq(&keys);
        // Scales of this name mean something else elsewhere.
        if keys.method().is_some() && !is_named {
            return Ok(None);
        }
        Ok(Some(Box::new(Opened {
            is_named,
            config: config::check(&keys).into(),
            order: order.unwrap_or_else(|| detect::order_of(checkpoint)),
        })))
    }

    fn settings(&self) -> &'static [&'static str] {
        &["weights"]
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Ok(ToEetq::read(settings)?.map(|quantizer| Box::new(quantizer) as _))
    }
}

/// A checkpoint that may have layers of the scheme.
struct Opened {
    /// The configuration says that it has.
    is_named: bool,
    config: Deferred<()>,
    /// The order of all layers' bytes.
    order: ByteOrder,
}

impl Scheme for Opened {
    fn claim(&self, layer: &LayerSource) -> bool {
        let codes = |name| layer.get(name).is_some_and(|t| t.dtype() == Dtype::I8);
        // Other schemes have exponents under this name.
        let bytes = |scales: TensorView| scales.dtype() == Dtype::U8;
        match layer.get(cut::SCALES) {
            Some(scales) => self.is_named || !bytes(scales),
            None => self.is_named && cut::CODES.into_iter().any(codes),
        }
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        self.config.get()?;
        Ok(Box::new(EetqLayer::parse(layer, self.order)?))
    }
}

impl ParsedLayer for EetqLayer {
    fn shape(&self) -> [usize; 2] {
        self.cut.shape()
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        Ok(LoadedLinear::new(self.packed()?))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        requantize::requantize(self, weight, how)
    }
}
