//! Writing a dense checkpoint as a quantized one.

use std::path::Path;

use qoft_core::{
    BackendOptions, ClaimedLayer, Matrix, Purpose, Quantization, Registry, Result, Schemes,
    StagedDir,
};
use qoft_models::ModelFolder;
use qoft_train::Evaluation;

use super::{QuantizeOptions, carry_out};
use crate::adapted::relative_error;
use crate::ahead::one_ahead;
use crate::layers::ModelLayers;
use crate::search::LayerSearch;
use crate::write::{Output, Surroundings, fill, together, write_json};

/// The file of the report.
const REPORT: &str = "quantize_report.json";

/// What was quantized and written.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct QuantizeReport {
    /// Name of the backend.
    pub backend: &'static str,
    /// The layers that were quantized.
    pub layers: Vec<QuantizedLayer>,
    /// What that did to the loss, if it was measured.
    pub losses: Option<QuantizeLosses>,
    /// Tensors in the output.
    pub tensors: usize,
    /// Files that hold them.
    pub shards: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// A layer that was quantized.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct QuantizedLayer {
    /// Module path.
    pub name: String,
    /// ‖written − dense‖ / ‖dense‖ (Frobenius), the written weight as readers find it.
    pub relative_error: f64,
    /// The same of the layer's outputs, where calibration data shows its inputs.
    pub output_error: Option<f64>,
}

/// The mean loss on some data before and after.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct QuantizeLosses {
    /// That of the dense model.
    pub dense: f64,
    /// That of the quantized one.
    pub quantized: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
}

impl QuantizeLosses {
    /// Those of two evaluations with the same data.
    pub fn between(dense: &Evaluation, quantized: &Evaluation) -> Self {
        Self {
            dense: dense.loss,
            quantized: quantized.loss,
            tokens: dense.tokens,
        }
    }
}

impl QuantizeReport {
    /// The layers from the largest error to the smallest.
    pub fn worst_first(&self) -> Vec<&QuantizedLayer> {
        let mut layers: Vec<_> = self.layers.iter().collect();
        layers.sort_by(|a, b| b.relative_error.total_cmp(&a.relative_error));
        layers
    }
}

/// A quantized checkpoint that is complete, but not yet at its place: dropping it leaves nothing.
#[derive(Debug)]
#[non_exhaustive]
pub struct StagedQuantization {
    /// What was quantized and written.
    pub report: QuantizeReport,
    staged: StagedDir,
}

impl StagedQuantization {
    /// Where the checkpoint is until [`Self::commit`] moves it.
    pub fn path(&self) -> &Path {
        self.staged.path()
    }

    /// Adds `quantize_report.json`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write_report(&self) -> Result<()> {
        let report = serde_json::json!(self.report);
        write_json(&self.path().join(REPORT), &report)
    }

    /// Moves the folder to its place in one step.
    ///
    /// # Errors
    /// If the file system refuses; then there is no output folder.
    pub fn commit(self) -> Result<QuantizeReport> {
        self.staged.commit()?;
        Ok(self.report)
    }
}

/// Writes the model of `folder` with its dense layers quantized, as [`quantize`](super::quantize()) does it, into a folder
/// that was begun and stays hidden until [`StagedQuantization::commit`]: tensors, `config.json` with
/// the scheme's `quantization_config`, tokenizer and the like. Every written layer is read back with
/// the backends of `registry`.
///
/// # Errors
/// Those of [`quantize`](super::quantize()), and if the output cannot be written.
pub fn quantize_staged(
    folder: &ModelFolder,
    registry: &Registry,
    quantization: &Quantization,
    options: &QuantizeOptions,
    search: &dyn LayerSearch,
    staged: StagedDir,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<StagedQuantization> {
    let schemes = registry.open(folder.checkpoint(), &BackendOptions::default())?;
    let plan = options.plan(folder, &schemes, quantization)?;
    let done = &mut |done, layers| progress(done, 2 * layers);
    let quantized = carry_out(&plan, folder, quantization, options, search, done)?;
    let checkpoint = quantized.checkpoint();
    let tensors = checkpoint.names().map(|name| checkpoint.tensor(name));
    let is_packed = plan.packed();
    let outputs = tensors.map(|tensor| {
        let tensor = tensor?;
        Ok(match is_packed(tensor.name()) {
            true => Output::packed(tensor),
            false => Output::of(folder, tensor),
        })
    });
    let around = Surroundings {
        config: checkpoint.config(),
        metadata: checkpoint.metadata(),
        from: checkpoint.dir(),
        skip: &[],
        max_shard_size: options.max_shard_size,
    };
    let outputs = together(folder, outputs.collect::<Result<_>>()?);
    let written = fill(&staged, outputs, &around, &|_, _| ())?;
    let dense = (folder, &schemes);
    let layers = errors(dense, &quantized, registry, search, progress)?;
    let report = QuantizeReport {
        backend: quantization.backend(),
        layers,
        losses: None,
        tensors: written.tensors,
        shards: written.shards,
        bytes: written.bytes,
    };
    Ok(StagedQuantization { report, staged })
}

/// What quantizing cost each layer.
fn errors(
    (dense, dense_schemes): (&ModelFolder, &Schemes),
    quantized: &ModelFolder,
    registry: &Registry,
    search: &dyn LayerSearch,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<QuantizedLayer>> {
    let schemes = registry.open(quantized.checkpoint(), &BackendOptions::default())?;
    let mut layers = ModelLayers::find(quantized, &schemes)?.layers;
    layers.retain(ClaimedLayer::is_quantized);
    let total = layers.len();
    let decode = |layer: ClaimedLayer| {
        let weight = layer.load(Purpose::Dequantize)?.weight;
        Ok::<_, qoft_core::Error>(Matrix::decode(&*weight))
    };
    let mut found = Vec::with_capacity(total);
    one_ahead(
        &layers,
        |layer| decode(*layer),
        |layer, written| {
            let before = decode(dense_schemes.find(dense.source(layer.path()))?)?;
            let inputs = search.inputs(layer.path())?;
            let outputs = inputs.and_then(|inputs| inputs.relative_error(&written, &before));
            found.push(QuantizedLayer {
                name: layer.path().to_owned(),
                relative_error: relative_error(&written, &before),
                output_error: outputs,
            });
            dense.checkpoint().release();
            progress(total + found.len(), 2 * total);
            Ok(())
        },
    )?;
    Ok(found)
}
