//! Multiplying adapters into the weights of a checkpoint.

mod change;
mod embedding;
mod plot;
mod report;
mod search;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    Checkpoint, Dense, Error, LayerSource, LoadOptions, Matrix, NewTensor, Purpose, QuantBackend,
    Registry, RequantizeOptions, Result, StagedDir, float_dtype, write_file,
};
use safetensors::tensor::TensorView as View;
use serde_json::{Value, json};

use crate::adapted::{MergeAdapter, check, relative_error, rotated};
use crate::layers::{Claimed, claimed, embeddings, is_under};
use crate::write::{Output, fill};

use embedding::Tables;

pub use change::Change;
pub use report::{KindSummary, MergeLosses, MergeReport, MergedLayer};
pub use search::LayerSearch;

/// What the merged checkpoint is like.
#[derive(Clone, Copy)]
pub enum MergeTarget<'a> {
    /// Dense weights in this format.
    Dense(FloatFormat),
    /// Every layer in the scheme that it had, with codes chosen by the search that this gives it.
    SameScheme(&'a dyn LayerSearch),
}

/// A merged checkpoint that is complete, but not yet at its place: dropping it leaves nothing.
#[derive(Debug)]
pub struct StagedMerge {
    /// What was merged and written.
    pub report: MergeReport,
    staged: StagedDir,
}

impl StagedMerge {
    /// Where the checkpoint is until [`Self::commit`] moves it.
    pub fn path(&self) -> &Path {
        self.staged.path()
    }

    /// Adds `merge_report.json` and `merge_report.svg`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write_report(&self) -> Result<()> {
        self.report.write(self.path())
    }

    /// Moves the folder to its place in one step.
    ///
    /// # Errors
    /// If the file system refuses; then there is no output folder.
    pub fn commit(self) -> Result<MergeReport> {
        self.staged.commit()?;
        Ok(self.report)
    }
}

/// Writes a checkpoint with the adapters multiplied into its weights to the new folder `output`.
///
/// Adapters are applied to a layer's input in the order given, as [`qoft_core::Linear`] does. The
/// folder appears in one step when it is complete. `progress` is told how many of how many
/// pieces are done.
///
/// # Errors
/// If a layer is damaged or of no known scheme, an adapter does not fit or gives values that are
/// not finite, or the output cannot be written; then there is no output folder.
pub fn merge(
    checkpoint: &Checkpoint,
    registry: &Registry,
    options: &LoadOptions,
    adapters: &[MergeAdapter],
    target: MergeTarget,
    output: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<MergeReport> {
    merge_staged(
        checkpoint, registry, options, adapters, target, output, progress,
    )?
    .commit()
}

/// As [`merge`], but the folder stays hidden until [`StagedMerge::commit`].
///
/// # Errors
/// Those of [`merge`].
pub fn merge_staged(
    checkpoint: &Checkpoint,
    registry: &Registry,
    options: &LoadOptions,
    adapters: &[MergeAdapter],
    target: MergeTarget,
    output: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<StagedMerge> {
    let layers = checked(checkpoint, registry, options, adapters, target)?;
    let staged = StagedDir::new(output)?;
    // Layers that were quantized again wait here, each in files of its own, so that memory holds
    // one at a time.
    let waiting = tempfile::tempdir_in(staged.path()).map_err(Error::io(staged.path()))?;
    let changes = |layer: &&Claimed| match target {
        MergeTarget::Dense(_) => is_quantized(layer) || adapted(adapters, layer.path),
        MergeTarget::SameScheme(_) => adapted(adapters, layer.path),
    };
    let changing: Vec<_> = layers.iter().filter(changes).collect();
    let dequantized = match target {
        MergeTarget::Dense(_) => changing.iter().filter(|layer| is_quantized(layer)).count(),
        MergeTarget::SameScheme(_) => 0,
    };
    let reports = Reports::default();
    let (mut outputs, mut requantized) = (Vec::new(), 0);
    for (index, layer) in changing.iter().enumerate() {
        let work = Work {
            index,
            source: LayerSource::new(checkpoint, layer.path),
            backend: layer.backend,
            options,
            adapters,
        };
        match target {
            MergeTarget::Dense(format) => outputs.extend(work.dense(format, &reports)?),
            MergeTarget::SameScheme(search) => {
                let folder = waiting.path().join(index.to_string());
                outputs.extend(work.requantized(search, &folder, &reports)?);
                requantized += 1;
                progress(requantized, changing.len() + checkpoint.names().count());
            }
        }
    }
    let tables = Tables::new(checkpoint, adapters);
    outputs.extend(tables.outputs(changing.len(), options, adapters, target, &reports)?);
    for name in checkpoint.names() {
        if tables.replace(name) {
            continue;
        }
        let owner = changing.iter().find(|layer| is_under(name, layer.path));
        if owner.is_none_or(|layer| name.strip_prefix(layer.path) == Some(".bias")) {
            outputs.push(kept(checkpoint, name, target)?);
        }
    }
    let mut config = match target {
        MergeTarget::Dense(format) => dense_config(checkpoint, format),
        MergeTarget::SameScheme(_) => checkpoint.config().clone(),
    };
    tables.configure(&mut config);
    let from = checkpoint.dir();
    let skip = match target {
        MergeTarget::Dense(_) => Checkpoint::QUANTIZATION_FILES.as_slice(),
        MergeTarget::SameScheme(_) => &[],
    };
    let written = fill(&staged, outputs, &config, from, skip, &|at, total| {
        progress(requantized + at, requantized + total);
    })?;
    waiting.close().map_err(Error::io(staged.path()))?;
    let report = MergeReport {
        layers: reports.into_layers(),
        dequantized,
        losses: None,
        tensors: written.tensors,
        shards: written.shards,
        bytes: written.bytes,
    };
    Ok(StagedMerge { report, staged })
}

/// Fails early where [`merge`] would: before calibration data is read, for example. It reads no
/// weight, and leaves nothing.
///
/// # Errors
/// If a layer is of no known scheme, or of one that cannot be written, an adapter does not fit, or
/// the output folder has something in it.
pub fn check_merge(
    checkpoint: &Checkpoint,
    registry: &Registry,
    options: &LoadOptions,
    adapters: &[MergeAdapter],
    target: MergeTarget,
    output: &Path,
) -> Result<()> {
    checked(checkpoint, registry, options, adapters, target)?;
    StagedDir::new(output).map(drop)
}

/// The layers of a checkpoint that can be merged.
fn checked<'a>(
    checkpoint: &'a Checkpoint,
    registry: &Registry,
    options: &LoadOptions,
    adapters: &[MergeAdapter],
    target: MergeTarget,
) -> Result<Vec<Claimed<'a>>> {
    registry.check_options(&options.backend)?;
    let layers = claimed(checkpoint, registry)?;
    check(adapters, checkpoint, &layers, &embeddings(checkpoint))?;
    if let MergeTarget::SameScheme(_) = target {
        check_requantizable(adapters, &layers)?;
    }
    Ok(layers)
}

fn is_quantized(layer: &Claimed) -> bool {
    layer.backend.name() != Dense.name()
}

fn adapted(adapters: &[MergeAdapter], path: &str) -> bool {
    adapters.iter().any(|adapter| adapter.changes(path))
}

/// Fails if a layer that changes is of a scheme that cannot be written.
fn check_requantizable(adapters: &[MergeAdapter], layers: &[Claimed]) -> Result<()> {
    let mut stuck = layers
        .iter()
        .filter(|layer| adapted(adapters, layer.path) && !layer.backend.capabilities().requantize);
    let Some(layer) = stuck.next() else {
        return Ok(());
    };
    let others = match stuck.count() {
        0 => String::new(),
        others => format!(" (and {others} more layers)"),
    };
    Err(Error::Requantize {
        layer: layer.path.to_owned(),
        backend: layer.backend.name().to_owned(),
        reason: format!("changed weights cannot be written in this scheme{others}"),
    })
}

/// A tensor that no adapter touches: as it is, or in the format of a dense checkpoint.
fn kept<'a>(checkpoint: &'a Checkpoint, name: &str, target: MergeTarget) -> Result<Output<'a>> {
    let tensor = checkpoint.tensor(name)?;
    let MergeTarget::Dense(format) = target else {
        return Ok(Output::copy(tensor));
    };
    tensor.float_format()?;
    Ok(Output {
        name: name.to_owned(),
        dtype: float_dtype(format),
        shape: tensor.shape().to_vec(),
        data: Box::new(move || Ok(format.to_bytes(&tensor.to_f32()?))),
    })
}

/// What is told of the layers that adapters change, by their numbers: dense ones are made only
/// when they are written, and that in the order of the file.
#[derive(Default)]
struct Reports(Mutex<BTreeMap<usize, MergedLayer>>);

impl Reports {
    fn add(&self, index: usize, layer: MergedLayer) {
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layers.insert(index, layer);
    }

    fn into_layers(self) -> Vec<MergedLayer> {
        let layers = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        layers.into_values().collect()
    }
}

/// A weight before and after the adapters.
struct Rotated {
    before: Matrix,
    weight: Matrix,
    /// The largest ‖RᵀR − I‖ of a block of the adapters.
    orthogonality_error: f64,
}

/// One layer on its way.
#[derive(Clone, Copy)]
struct Work<'a> {
    /// Its number among those that change.
    index: usize,
    source: LayerSource<'a>,
    backend: &'static dyn QuantBackend,
    options: &'a LoadOptions,
    adapters: &'a [MergeAdapter],
}

impl<'a> Work<'a> {
    /// The values that are written, not those that are computed with.
    fn load_options(&self) -> LoadOptions {
        LoadOptions {
            purpose: Purpose::Dequantize,
            ..self.options.clone()
        }
    }

    /// The weight with the adapters in it.
    fn rotated(&self) -> Result<Rotated> {
        let loaded = self.backend.load(&self.source, &self.load_options())?;
        let before = Matrix::decode(&*loaded.weight);
        let (weight, orthogonality_error) =
            rotated(before.clone(), self.adapters, self.source.path())?;
        if weight.values.iter().any(|v| !v.is_finite()) {
            let reason = "the merged weight has values that are infinite or not a number";
            return Err(self.source.error(self.backend, reason));
        }
        Ok(Rotated {
            before,
            weight,
            orthogonality_error,
        })
    }

    /// Tells of the layer, if adapters change it.
    fn report(&self, reports: &Reports, rotated: &Rotated, written: &Matrix) {
        if adapted(self.adapters, self.source.path()) {
            let layer = MergedLayer {
                name: self.source.path().to_owned(),
                backend: self.backend.name(),
                orthogonality_error: rotated.orthogonality_error,
                relative_error: relative_error(written, &rotated.weight),
                change: Change::new(&rotated.before, &rotated.weight, written),
            };
            reports.add(self.index, layer);
        }
    }

    /// The dense weight, made when it is written, and a bias that is spread over several tensors;
    /// the layer is read once before, to see that it can be.
    fn dense(self, format: FloatFormat, reports: &'a Reports) -> Result<Vec<Output<'a>>> {
        let loaded = self.backend.load(&self.source, &self.load_options())?;
        let mut shape = loaded.weight.shape().to_vec();
        if self.source.is_fan_in_fan_out() {
            shape.reverse();
        }
        // A bias under its plain name is kept as every other tensor is.
        let bias = loaded.bias.filter(|_| !self.source.has("bias"));
        let bias = bias.map(|bias| Output {
            name: format!("{}.bias", self.source.path()),
            dtype: float_dtype(format),
            shape: vec![bias.len()],
            data: Box::new(move || Ok(format.to_bytes(&bias))),
        });
        let weight = Output {
            name: format!("{}.weight", self.source.path()),
            dtype: float_dtype(format),
            shape,
            data: Box::new(move || {
                let rotated = self.rotated()?;
                let mut written = rotated.weight.clone();
                format.round(&mut written.values);
                self.report(reports, &rotated, &written);
                Ok(format.to_bytes(&self.source.dense_layout(rotated.weight).values))
            }),
        };
        Ok(bias.into_iter().chain([weight]).collect())
    }

    /// The tensors of the layer quantized again, which wait in `folder`.
    fn requantized(
        self,
        search: &dyn LayerSearch,
        folder: &Path,
        reports: &Reports,
    ) -> Result<Vec<Output<'static>>> {
        let rotated = self.rotated()?;
        let search = search.search(self.source.path())?;
        let options = RequantizeOptions {
            backend: self.options.backend.clone(),
            search: &*search,
        };
        let tensors = self
            .backend
            .requantize(&self.source, &rotated.weight, &options);
        let waiting = self.store(&tensors.map_err(into_requantize)?, folder)?;
        // What readers will find in the new tensors.
        let source = LayerSource::new(&waiting, self.source.path());
        let read = self.backend.load(&source, &self.load_options())?;
        self.report(reports, &rotated, &Matrix::decode(&*read.weight));
        let names = waiting.under(self.source.path());
        let names = names.filter(|name| !name.ends_with(".bias"));
        names
            .map(|name| waiting.tensor(name).map(Output::copy))
            .collect()
    }

    /// Writes the layer's tensors to a checkpoint of their own.
    fn store(&self, tensors: &[NewTensor], folder: &Path) -> Result<Checkpoint> {
        let path = self.source.path();
        std::fs::create_dir(folder).map_err(Error::io(folder))?;
        let file = folder.join("model.safetensors");
        let mut views = Vec::new();
        for tensor in tensors {
            let view = View::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
            let view = view.map_err(|e| Error::file(&file, e))?;
            views.push((format!("{path}.{}", tensor.suffix), view));
        }
        let bytes = safetensors::serialize(views, None).map_err(|e| Error::file(&file, e))?;
        std::fs::write(&file, bytes).map_err(Error::io(&file))?;
        let config = json!({
            "model_type": self.source.config()["model_type"],
            "quantization_config": self.source.quantization_config(),
        });
        let config_file = folder.join("config.json");
        write_file(&config_file, config.to_string().as_bytes())?;
        Checkpoint::open(folder)
    }
}

/// Says of an error that it came from writing the layer in its scheme.
fn into_requantize(error: Error) -> Error {
    match error {
        Error::Layer {
            layer,
            backend,
            reason,
        } => Error::Requantize {
            layer,
            backend,
            reason,
        },
        other => other,
    }
}

fn dense_config(checkpoint: &Checkpoint, format: FloatFormat) -> Value {
    let mut config = checkpoint.config().clone();
    if let Some(config) = config.as_object_mut() {
        config.shift_remove("quantization_config");
        let dtype = match format {
            FloatFormat::F32 => "float32",
            FloatFormat::F16 => "float16",
            FloatFormat::Bf16 => "bfloat16",
        };
        // Older versions of transformers read `torch_dtype`, newer ones `dtype`.
        let key = if config.contains_key("torch_dtype") {
            "torch_dtype"
        } else {
            "dtype"
        };
        config.insert(key.into(), dtype.into());
    }
    config
}
