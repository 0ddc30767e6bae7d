//! Which layers are quantized, and in which dtype they are before.

use qoft_core::kernels::FloatFormat;
use qoft_core::{ClaimedLayer, Error, LayerKind, ModulePatterns, Quantization, Result, Schemes};
use qoft_models::ModelFolder;

use super::QuantizeOptions;
use crate::layers::{claimed, head};
use crate::model_dtype::stated;

/// What is done to a model.
pub(super) struct Plan<'a> {
    /// Layers that are quantized.
    pub layers: Vec<ClaimedLayer<'a>>,
    /// Module paths of the other linear layers.
    pub dense: Vec<String>,
    /// The model's dtype.
    pub format: FloatFormat,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// If a layer is quantized already, no layer is left, or a pattern is wrong.
    pub fn new(
        folder: &'a ModelFolder,
        schemes: &'a Schemes,
        quantization: &Quantization,
        options: &QuantizeOptions,
    ) -> Result<Self> {
        let dir = folder.checkpoint().dir();
        let all = claimed(folder, schemes)?;
        if let Some(layer) = all.iter().find(|layer| layer.is_quantized()) {
            let (path, backend) = (layer.path(), layer.backend());
            let reason = format!(
                "only dense checkpoints can be quantized, and layer `{path}` is quantized already \
                 ({backend})"
            );
            return Err(Error::file(dir, reason));
        }
        let skips = options.skips.as_deref().or(quantization.skips());
        let skips = skips.map(ModulePatterns::new).transpose()?;
        let (mut layers, mut dense) = (Vec::new(), Vec::new());
        for layer in all {
            let stays = match &skips {
                Some(patterns) => patterns.matches(layer.path())?,
                None => layer.path() == head(folder),
            };
            match is_linear(folder, layer.path()) {
                true if !stays => layers.push(layer),
                true => dense.push(layer.path().to_owned()),
                false => {}
            }
        }
        let Some(first) = layers.first() else {
            return Err(Error::file(dir, "no linear layer is left to quantize"));
        };
        let format = match options.format.or(stated(folder.checkpoint().config())) {
            Some(format) => format,
            None => first.source().tensor("weight")?.float_format()?,
        };
        Ok(Self {
            layers,
            dense,
            format,
        })
    }
}

/// Whether the model has a linear layer at a path, with a weight of its own. In a model of an unknown
/// architecture every matrix is one.
fn is_linear(folder: &ModelFolder, path: &str) -> bool {
    folder.known().is_none_or(|spec| {
        let layer = spec.layer(path);
        layer.is_some_and(|layer| layer.kind == LayerKind::Linear && layer.tied_to.is_none())
    })
}
