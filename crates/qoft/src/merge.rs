//! Multiplying adapters into the weights of a checkpoint.

mod change;
mod changed;
mod config;
mod embedding;
mod options;
mod plot;
mod report;
mod rewritten;
mod sample;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{ClaimedLayer, Error, Result, Schemes, StagedDir, float_dtype};
use qoft_models::ModelFolder;

use crate::adapted::check;
use crate::adapter::ScaledAdapter;
use crate::complete::check_complete;
use crate::layers::{claimed, packed_parameters};
use crate::own;
use crate::owners::Owners;
use crate::write::{Data, Output, Surroundings, fill, rewrite, write_model, writer_of};

use changed::Merging;
use embedding::Tables;
use rewritten::is_bias;
use work::Reports;

pub use change::{Change, OutputChange};
pub use options::{MergeOptions, MergeTarget, NewScheme};
pub use report::{KeptShares, KindSummary, MergeLosses, MergeReport, MergedLayer};
pub use sample::MergeSample;

/// A merged checkpoint that is complete, but not yet at its place: dropping it leaves nothing.
#[derive(Debug)]
#[non_exhaustive]
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
        self.report.write(self.path())?;
        plot::write(&self.report.layers, self.path())
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
/// not finite, too little of its change is kept, or the output cannot be written; then there is no
/// output folder.
pub fn merge<'a>(
    folder: &ModelFolder,
    schemes: &Schemes,
    adapters: &[ScaledAdapter],
    options: impl Into<MergeOptions<'a>>,
    output: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<MergeReport> {
    let options = options.into();
    check_merge(folder, schemes, adapters, options.target)?;
    let staged = StagedDir::new(output)?;
    merge_staged(folder, schemes, adapters, options, staged, progress)?.commit()
}

/// As [`merge`] into a folder that was begun, and stays hidden until [`StagedMerge::commit`].
///
/// # Errors
/// Those of [`merge`].
pub fn merge_staged<'a>(
    folder: &'a ModelFolder,
    schemes: &'a Schemes,
    adapters: &'a [ScaledAdapter],
    options: MergeOptions,
    staged: StagedDir,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<StagedMerge> {
    let target = options.target;
    if let Some(form) = options.container {
        form.writer()?;
    }
    let reports = Reports::default();
    let checkpoint = folder.checkpoint();
    let merging = Merging {
        folder,
        schemes,
        adapters,
        layers: checked(folder, schemes, adapters, target)?,
        scratch: staged.path(),
        reports: &reports,
        progress,
    };
    let mut changed = merging.change(target)?;
    let tables = Tables::new(folder, schemes, adapters);
    let (layers, format) = (&changed.layers, changed.format);
    let mut outputs = std::mem::take(&mut changed.outputs);
    outputs.extend(tables.outputs(layers.len(), format, &reports)?);
    let (current, owners) = (&changed.current, Owners::new(layers));
    let same = matches!(target, MergeTarget::SameScheme(_));
    // Only the scheme that they are in knows them.
    let packed = match format.filter(|_| !same) {
        Some(format) => made_dense(folder, schemes, format)?,
        None => DenseParameters::default(),
    };
    outputs.extend(packed.outputs);
    for name in current.names() {
        if tables.replace(name) || packed.parts.contains(name) {
            continue;
        }
        match owners.of(name).filter(|layer| !is_bias(name, layer)) {
            None if !same && schemes.is_beside_layers(name) => {}
            None => outputs.push(own::kept(current, adapters, name, format)?),
            Some(layer) if changed.dense.contains(layer.path()) => {}
            Some(_) => outputs.push(Output::copy(current.tensor(name)?)),
        }
    }
    let mut config = changed.config.clone();
    tables.configure(&mut config);
    let quantized = changed.quantized;
    let progress = |at, total| progress(quantized + at, quantized + total);
    let written = match (target, options.container) {
        (MergeTarget::Dense(_), Some(form)) => {
            write_model(folder, form, &config, &staged, outputs, &progress)?
        }
        _ => match writer_of(checkpoint)?.filter(|_| same) {
            Some(writer) => rewrite(checkpoint, writer, &staged, outputs, &progress)?,
            None => {
                let nothing = BTreeMap::new();
                let around = Surroundings {
                    config: &config,
                    metadata: match target {
                        MergeTarget::Dense(_) => &nothing,
                        _ => current.metadata(),
                    },
                    from: checkpoint.dir(),
                    skip: if same { &[] } else { schemes.config_files() },
                    max_shard_size: options.max_shard_size,
                };
                fill(&staged, outputs, &around, &progress)?
            }
        },
    };
    let is_dense = matches!(target, MergeTarget::Dense(_));
    let dequantized = layers.iter().filter(|layer| layer.is_quantized());
    let dequantized = dequantized.filter(|layer| changed.dense.contains(layer.path()));
    let dequantized = dequantized.count();
    drop(changed);
    let report = MergeReport {
        dequantized,
        quantized,
        min_kept: if is_dense { 0.0 } else { options.min_kept },
        losses: None,
        tensors: written.tensors,
        shards: written.shards,
        bytes: written.bytes,
        layers: reports.into_layers(),
    };
    report.check_kept()?;
    Ok(StagedMerge { report, staged })
}

/// Packed parameters that are written dense.
#[derive(Default)]
struct DenseParameters {
    /// The tensors that they were made of.
    parts: BTreeSet<String>,
    /// The parameters, decoded when they are written.
    outputs: Vec<Output<'static>>,
}

/// The packed parameters of a checkpoint that are no linear layer's, made dense.
fn made_dense(
    folder: &ModelFolder,
    schemes: &Schemes,
    format: FloatFormat,
) -> Result<DenseParameters> {
    let mut dense = DenseParameters::default();
    for parameter in packed_parameters(folder, schemes, &claimed(folder, schemes)?)? {
        dense.parts.extend(parameter.parts.iter().cloned());
        dense.outputs.push(Output {
            name: parameter.name.clone(),
            dtype: float_dtype(format),
            shape: parameter.shape.clone(),
            data: Data::Made(Box::new(move || Ok(parameter.to_bytes(format)))),
        });
    }
    Ok(dense)
}

/// Fails early where [`merge`] would: before calibration data is read, for example. It reads no
/// weight.
///
/// # Errors
/// If a layer is of no known scheme, or of one that cannot be written, or an adapter does not fit.
pub fn check_merge(
    folder: &ModelFolder,
    schemes: &Schemes,
    adapters: &[ScaledAdapter],
    target: MergeTarget,
) -> Result<()> {
    checked(folder, schemes, adapters, target).map(drop)
}

/// The layers of a checkpoint that can be merged.
fn checked<'a>(
    folder: &'a ModelFolder,
    schemes: &'a Schemes,
    adapters: &[ScaledAdapter],
    target: MergeTarget,
) -> Result<Vec<ClaimedLayer<'a>>> {
    let layers = claimed(folder, schemes)?;
    check_complete(folder, schemes)?;
    check(adapters, folder, &layers)?;
    match target {
        MergeTarget::Dense(_) => check_readable(&layers)?,
        MergeTarget::NewScheme(scheme) => {
            check_readable(&layers)?;
            scheme.plan(folder, schemes)?;
        }
        MergeTarget::SameScheme(_) => {
            check_requantizable(adapters, &layers)?;
            writer_of(folder.checkpoint())?;
            own::refuse_spread(&layers, adapters)?;
        }
    }
    Ok(layers)
}

/// Fails if the values of a layer cannot be read.
fn check_readable(layers: &[ClaimedLayer]) -> Result<()> {
    let stuck = |layer: &&ClaimedLayer| !layer.capabilities().dequantize;
    match layers.iter().find(stuck) {
        None => Ok(()),
        Some(layer) => Err(layer.source().incapable("be made dense")),
    }
}

fn adapted(adapters: &[ScaledAdapter], path: &str) -> bool {
    adapters.iter().any(|adapter| adapter.changes(path))
}

/// Fails if a layer that changes is of a scheme that cannot be written.
fn check_requantizable(adapters: &[ScaledAdapter], layers: &[ClaimedLayer]) -> Result<()> {
    let mut stuck = layers
        .iter()
        .filter(|layer| adapted(adapters, layer.path()) && !layer.capabilities().requantize);
    let Some(layer) = stuck.next() else {
        return Ok(());
    };
    let others = match stuck.count() {
        0 => String::new(),
        others => format!(" (and {others} more layers)"),
    };
    Err(Error::Requantize {
        layer: layer.path().to_owned(),
        backend: layer.backend().to_owned(),
        reason: format!("changed weights cannot be written in this scheme{others}"),
    })
}
