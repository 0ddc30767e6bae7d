//! Multiplying adapters into the weights of a checkpoint.

mod change;
mod changed;
mod config;
mod embedding;
mod options;
mod parameters;
mod plan;
mod plot;
mod report;
mod rewritten;
mod sample;
mod work;

use std::collections::BTreeMap;
use std::path::Path;

use qoft_core::{Result, Schemes, StagedDir};
use qoft_models::ModelFolder;

use crate::adapter::ScaledAdapter;
use crate::layers::is_foreign;
use crate::own;
use crate::owners::{Owners, is_bias};
use crate::write::{Output, Surroundings, fill, rewrite, together, write_model, writer_of};

use changed::Merging;
use embedding::{Tables, TablesAs};
use parameters::DenseParameters;
use plan::Way;
use work::Reports;

pub use change::{Change, OutputChange};
pub use options::{MergeOptions, MergeTarget, NewScheme};
pub use plan::MergePlan;
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
    folder: &'a ModelFolder,
    schemes: &'a Schemes,
    adapters: &'a [ScaledAdapter],
    options: impl Into<MergeOptions<'a>>,
    output: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<MergeReport> {
    let plan = MergePlan::new(folder, schemes, adapters, options)?;
    merge_staged(plan, StagedDir::new(output)?, progress)?.commit()
}

/// As [`merge`] into a folder that was begun, and stays hidden until [`StagedMerge::commit`].
///
/// # Errors
/// Those of [`merge`].
pub fn merge_staged(
    plan: MergePlan,
    staged: StagedDir,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<StagedMerge> {
    let MergePlan {
        folder,
        schemes,
        adapters,
        options,
        layers,
        packed,
        way,
    } = plan;
    let adapters = &*adapters;
    let (same, is_dense) = (matches!(way, Way::Same(_)), matches!(way, Way::Dense(_)));
    let reports = Reports::default();
    let checkpoint = folder.checkpoint();
    // Also those that no adapter changes, whose codes are copied.
    let all_layers = layers.clone();
    let all_owners = Owners::new(&all_layers);
    let merging = Merging {
        folder,
        adapters,
        layers,
        dense_values: options.dense_values,
        scratch: staged.path(),
        reports: &reports,
        progress,
    };
    let mut changed = merging.change(way)?;
    let tables = Tables::new(folder, schemes, adapters);
    let (layers, format) = (&changed.layers, changed.format);
    let mut outputs = std::mem::take(&mut changed.outputs);
    let tables_as = TablesAs {
        format,
        in_scheme: same.then_some(staged.path()),
    };
    outputs.extend(tables.outputs(layers.len(), tables_as, &reports)?);
    let (current, owners) = (&changed.current, Owners::new(layers));
    // Only the scheme that they are in knows them.
    let packed = match format.filter(|_| !same) {
        Some(format) => DenseParameters::new(packed, format),
        None => DenseParameters::default(),
    };
    outputs.extend(packed.outputs);
    let leaves_scheme = !same && schemes.quantization_config().is_some();
    let mut dropped = Vec::new();
    for name in current.names() {
        if tables.replace(name) || packed.parts.contains(name) {
            continue;
        }
        let is_foreign = is_foreign(folder, name);
        let is_own = folder.known().is_some_and(|spec| spec.is_own_tensor(name));
        let owner = owners
            .of(name)
            .filter(|layer| !is_own && !is_bias(name, layer));
        match owner {
            owner
                if leaves_scheme
                    && (owner.is_none() || is_foreign)
                    && schemes.is_beside_layers(name) =>
            {
                dropped.push(name);
            }
            _ if is_foreign => outputs.push(Output::foreign(current.tensor(name)?)),
            Some(layer) if changed.dense.contains(layer.path()) => {}
            None => {
                let layer = all_owners.of(name).filter(|layer| !is_bias(name, layer));
                let is_code = same && !is_own && layer.is_some_and(|layer| layer.is_quantized());
                outputs.push(match is_code {
                    true => Output::packed(current.tensor(name)?),
                    false => own::kept(current, adapters, name, format)?,
                });
            }
            Some(layer) => {
                let tensor = current.tensor(name)?;
                let before = folder.checkpoint().get(name);
                let is_new = before.is_none_or(|before| before.file() != tensor.file());
                outputs.push(match is_new || layer.is_quantized() {
                    true => Output::packed(tensor),
                    false => Output::copy(tensor),
                });
            }
        }
    }
    if let Some(first) = dropped.first() {
        tracing::warn!(
            "{} tensors only mean something to the scheme of the model and are left out, the first \
             is `{first}`",
            dropped.len()
        );
    }
    let outputs = together(folder, outputs);
    let mut config = changed.config.clone();
    tables.configure(&mut config);
    let quantized = changed.quantized;
    let progress = |at, total| progress(quantized + at, quantized + total);
    let written = match options.container.filter(|_| is_dense) {
        Some(form) => write_model(folder, form, &config, &staged, outputs, &progress)?,
        None => match writer_of(checkpoint)?.filter(|_| same) {
            Some(writer) => rewrite(checkpoint, writer, &staged, outputs, &progress)?,
            None => {
                let nothing = BTreeMap::new();
                let around = Surroundings {
                    config: &config,
                    metadata: if is_dense {
                        &nothing
                    } else {
                        current.metadata()
                    },
                    from: checkpoint.dir(),
                    skip: if same { &[] } else { schemes.config_files() },
                    max_shard_size: options.max_shard_size,
                };
                fill(&staged, outputs, &around, &progress)?
            }
        },
    };
    let dequantized = layers.iter().filter(|layer| layer.is_quantized());
    let dequantized = dequantized.filter(|layer| changed.dense.contains(layer.path()));
    let dequantized = dequantized.count();
    drop(changed);
    let report = MergeReport {
        dequantized,
        rounded: reports.rounded(),
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

fn adapted(adapters: &[ScaledAdapter], path: &str) -> bool {
    adapters.iter().any(|adapter| adapter.changes(path))
}
