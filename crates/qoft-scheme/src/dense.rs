//! The backend of layers that are not quantized; the last one asked.

use qoft_kernels::{DenseWeight, Matrix, transpose};

use crate::backend::{LoadedLinear, ParsedLayer, QuantBackend, Requantize, Scheme};
use crate::capabilities::Capabilities;
use crate::checkpoint::{Checkpoint, NewTensor};
use crate::entry::Tier;
use crate::error::Result;
use crate::layer_source::LayerSource;
use crate::mapped::TensorView;
use crate::options::{Purpose, SchemeOptions};
use crate::registry::Registration;

/// Dense `f32`, `f16` or `bf16` layers, kept in their dtype on the memory map.
#[derive(Debug, Clone, Copy)]
pub struct Dense;

/// The registration of [`Dense`].
pub static REGISTRATION: Registration = Registration::new(&Dense).in_tier(Tier::Fallback);

crate::register_backend!(REGISTRATION);

impl QuantBackend for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR.and_requantize().of_dense()
    }

    fn open(&self, _: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        Ok(Some(Box::new(Self)))
    }
}

impl Dense {
    /// Whether a layer has a plain matrix for a weight, and nothing else but a bias and what says
    /// nothing of the weight.
    pub fn is_dense(layer: &LayerSource) -> bool {
        let plain = |suffix: &str| suffix == WEIGHT || suffix == "bias" || is_beside(suffix);
        layer.suffixes().all(plain)
            && layer
                .get(WEIGHT)
                .is_some_and(|w| w.shape().len() == 2 && w.float_format().is_ok())
    }
}

const WEIGHT: &str = "weight";

/// Whether a tensor of a layer is about activations or caches, or left of an adapter: nothing is
/// computed with it where the weight is dense, as in transformers.
fn is_beside(suffix: &str) -> bool {
    const ACTIVATIONS: [&str; 4] = ["input", "output", "k", "v"];
    let of_activations = |kind: &str| {
        let name = suffix.strip_suffix(kind).and_then(|s| s.strip_suffix('_'));
        name.is_some_and(|name| ACTIVATIONS.contains(&name))
    };
    // Of a router, where experts are chosen.
    let corrects = suffix == "e_score_correction_bias";
    of_activations("scale")
        || of_activations("zero_point")
        || suffix.starts_with("lora_")
        || corrects
}

impl Scheme for Dense {
    fn claim(&self, layer: &LayerSource) -> bool {
        Self::is_dense(layer)
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let tensor = layer.tensor(WEIGHT)?;
        tensor.float_format()?;
        let [rows, cols] = tensor.matrix()?;
        let turned = layer.is_fan_in_fan_out();
        let shape = if turned { [cols, rows] } else { [rows, cols] };
        Ok(Box::new(Parsed {
            tensor,
            shape,
            turned,
        }))
    }
}

/// A layer with a plain matrix.
struct Parsed {
    tensor: TensorView,
    /// `[out_features, in_features]`
    shape: [usize; 2],
    /// The file has it as `[in_features, out_features]`.
    turned: bool,
}

impl ParsedLayer for Parsed {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        if !self.turned {
            return dense_weight(&self.tensor).map(LoadedLinear::new);
        }
        let format = self.tensor.float_format()?;
        let bytes = transpose(self.tensor.bytes(), format.size(), self.tensor.matrix()?);
        let weight = DenseWeight::new(bytes.into(), format, self.shape);
        Ok(LoadedLinear::new(weight))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        let format = self.tensor.float_format()?;
        let values = how.current.dense_layout(weight.clone()).values;
        let tensor = how.current.rewritten(WEIGHT, format.to_bytes(&values))?;
        Ok(vec![tensor])
    }
}

/// A matrix of a checkpoint as a weight, without copying it.
///
/// # Errors
/// If the tensor is no float matrix.
pub fn dense_weight(tensor: &TensorView) -> Result<DenseWeight> {
    let (shape, format) = (tensor.matrix()?, tensor.float_format()?);
    Ok(DenseWeight::new(tensor.bytes().clone(), format, shape))
}
