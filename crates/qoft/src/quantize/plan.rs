//! Which layers are quantized, and in which dtype they are before.

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    ClaimedLayer, Error, LayerKind, ModulePatterns, Quantization, QuantizedModel, Result, Schemes,
};
use qoft_models::ModelFolder;
use serde_json::Value;

use crate::layers::claimed;
use crate::model_dtype::stated;

/// What is done to a model.
pub(crate) struct Plan<'a> {
    /// Layers that are quantized.
    pub layers: Vec<ClaimedLayer<'a>>,
    /// The other linear layers, and embedding tables that are quantized.
    pub dense: Vec<ClaimedLayer<'a>>,
    /// The model's dtype.
    pub format: FloatFormat,
    /// Modules that stay dense, as the configuration says it: the list that was given, or none
    /// where only the output head does.
    skips: Option<Vec<String>>,
}

impl<'a> Plan<'a> {
    /// For a model whose layers are all dense. `skips` and `format` are used instead of what the
    /// settings and the model's configuration say.
    ///
    /// # Errors
    /// If a layer is quantized already, no layer is left, or a pattern is wrong.
    pub fn of_dense(
        folder: &'a ModelFolder,
        schemes: &'a Schemes,
        quantization: &Quantization,
        skips: Option<&[String]>,
        format: Option<FloatFormat>,
    ) -> Result<Self> {
        let plan = Self::new(folder, schemes, quantization, skips, format)?;
        let mut all = plan.layers.iter().chain(&plan.dense);
        match all.find(|layer| layer.is_quantized()) {
            None => Ok(plan),
            Some(layer) => {
                let (path, backend) = (layer.path(), layer.backend());
                let reason = format!(
                    "only dense checkpoints can be quantized, and layer `{path}` is quantized \
                     already ({backend})"
                );
                Err(Error::file(folder.checkpoint().path(), reason))
            }
        }
    }

    /// For any model. Where some layers are quantized, dense ones stay as they are.
    ///
    /// # Errors
    /// If no layer is left, or a pattern is wrong.
    pub fn new(
        folder: &'a ModelFolder,
        schemes: &'a Schemes,
        quantization: &Quantization,
        skips: Option<&[String]>,
        format: Option<FloatFormat>,
    ) -> Result<Self> {
        let all = claimed(folder, schemes)?;
        let (all, tables): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|layer| is_linear(folder, layer));
        let is_mixed = all.iter().any(ClaimedLayer::is_quantized);
        let given = skips.or(quantization.skips());
        let patterns = given.map(ModulePatterns::new).transpose()?;
        let head = folder.head();
        let (mut layers, mut dense, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for layer in all {
            let listed = match &patterns {
                Some(patterns) => patterns.matches(layer.path())?,
                None => layer.path() == head,
            };
            let stays = is_mixed && !layer.is_quantized();
            if stays && !listed {
                others.push(layer.path().to_owned());
            }
            match stays || listed {
                true => dense.push(layer),
                false => layers.push(layer),
            }
        }
        dense.extend(tables.into_iter().filter(ClaimedLayer::is_quantized));
        let Some(first) = layers.first() else {
            let reason = "no linear layer is left to quantize";
            return Err(Error::file(folder.checkpoint().path(), reason));
        };
        let format = match format.or(stated(folder.checkpoint().config())) {
            Some(format) => format,
            None => match first.source().get("weight").map(|w| w.float_format()) {
                Some(Ok(format)) => format,
                // Weights that are quantized do not say what they were.
                _ => FloatFormat::F16,
            },
        };
        let skips = match (given, others.is_empty()) {
            (None, true) => None,
            (None, false) => Some([others, vec![head.to_owned()]].concat()),
            (Some(given), _) => Some([given, &others].concat()),
        };
        Ok(Self {
            layers,
            dense,
            format,
            skips,
        })
    }

    /// Module paths of the layers that are quantized.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(ClaimedLayer::path)
    }

    /// The `quantization_config` of the model.
    pub fn config(&self, quantization: &Quantization) -> Value {
        let paths = self.dense.iter().map(|layer| layer.path().to_owned());
        let dense: Vec<String> = paths.collect();
        let skips = self.skips.as_deref();
        quantization.config(&QuantizedModel::new(self.format, skips, &dense))
    }
}

/// Whether the model has such a linear layer, with a weight of its own. In a model of an unknown
/// architecture every matrix is one.
fn is_linear(folder: &ModelFolder, layer: &ClaimedLayer) -> bool {
    folder.known().is_none_or(|spec| {
        let layer = spec.layer(layer.path());
        layer.is_some_and(|layer| layer.kind == LayerKind::Linear && layer.tied_to.is_none())
    })
}
