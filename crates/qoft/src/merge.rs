//! Multiplying adapters into the weights of a checkpoint.

mod change;
mod config;
mod embedding;
mod options;
mod plot;
mod report;
mod sample;
mod search;
mod work;

use std::path::Path;

use qoft_core::{ClaimedLayer, Error, Result, Schemes, StagedDir, WaitingFile};
use qoft_models::ModelFolder;

use crate::adapted::check;
use crate::adapter::ScaledAdapter;
use crate::ahead::one_ahead;
use crate::complete::check_complete;
use crate::layers::claimed;
use crate::own;
use crate::owners::Owners;
use crate::write::{Output, fill};

use config::dense_config;
use embedding::Tables;
use work::{Reports, Work};

pub use change::{Change, OutputChange};
pub use options::{MergeOptions, MergeTarget};
pub use report::{KeptShares, KindSummary, MergeLosses, MergeReport, MergedLayer};
pub use sample::MergeSample;
pub use search::LayerSearch;

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
    let layers = checked(folder, schemes, adapters, target)?;
    let checkpoint = folder.checkpoint();
    // With the layers that were quantized again, which wait in a file, so that memory only holds
    // those in work.
    let mut current = checkpoint.clone();
    let mut waiting = WaitingFile::new(staged.path())?;
    let changes = |layer: &&ClaimedLayer| match target {
        MergeTarget::Dense(_) => layer.is_quantized() || adapted(adapters, layer.path()),
        MergeTarget::SameScheme(_) => adapted(adapters, layer.path()),
    };
    let changing: Vec<_> = layers.iter().filter(changes).collect();
    let dequantized = match target {
        MergeTarget::Dense(_) => changing.iter().filter(|layer| layer.is_quantized()).count(),
        MergeTarget::SameScheme(_) => 0,
    };
    let reports = Reports::default();
    let work = |(index, layer): (usize, &ClaimedLayer<'a>)| Work {
        index,
        layer: *layer,
        adapters,
    };
    let (mut outputs, mut requantized) = (Vec::new(), 0);
    let works = changing.iter().copied().enumerate().map(work);
    match target {
        MergeTarget::Dense(format) => {
            for work in works {
                outputs.extend(work.dense(format, &reports)?);
            }
        }
        MergeTarget::SameScheme(search) => {
            let mut quantized = Vec::new();
            for work in works {
                if work.layer.is_quantized() {
                    quantized.push(work);
                    continue;
                }
                let format = work.layer.source().tensor("weight")?.float_format()?;
                outputs.extend(work.dense(format, &reports)?);
            }
            let total = quantized.len() + checkpoint.names().count();
            let rotate = |work: &Work| work.rotated(search);
            one_ahead(&quantized, rotate, |work, rotated| {
                work.requantize(rotated, search, &mut current, &mut waiting, &reports)?;
                requantized += 1;
                progress(requantized, total);
                Ok(())
            })?;
        }
    }
    drop(waiting);
    let tables = Tables::new(folder, schemes, adapters);
    outputs.extend(tables.outputs(changing.len(), target, &reports)?);
    let owners = Owners::new(changing.iter().copied());
    for name in current.names() {
        if tables.replace(name) {
            continue;
        }
        let owner = owners.of(name);
        if owner.is_none_or(|layer| name.strip_prefix(layer.path()) == Some(".bias")) {
            outputs.push(own::kept(&current, adapters, name, target.dense_format())?);
        } else if let MergeTarget::SameScheme(_) = target
            && owner.is_some_and(|layer| layer.is_quantized())
        {
            outputs.push(Output::copy(current.tensor(name)?));
        }
    }
    let mut config = match target {
        MergeTarget::Dense(format) => dense_config(checkpoint.config(), format),
        MergeTarget::SameScheme(_) => checkpoint.config().clone(),
    };
    tables.configure(&mut config);
    let from = checkpoint.dir();
    let skip = match target {
        MergeTarget::Dense(_) => schemes.config_files(),
        MergeTarget::SameScheme(_) => &[],
    };
    let written = fill(&staged, outputs, &config, from, skip, &|at, total| {
        progress(requantized + at, requantized + total);
    })?;
    let report = MergeReport {
        layers: reports.into_layers(),
        dequantized,
        min_kept: match target {
            MergeTarget::Dense(_) => 0.0,
            MergeTarget::SameScheme(_) => options.min_kept,
        },
        losses: None,
        tensors: written.tensors,
        shards: written.shards,
        bytes: written.bytes,
    };
    report.check_kept()?;
    Ok(StagedMerge { report, staged })
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
        MergeTarget::Dense(_) => {
            let stuck = |layer: &&ClaimedLayer| !layer.capabilities().dequantize;
            if let Some(layer) = layers.iter().find(stuck) {
                return Err(layer.source().incapable("be made dense"));
            }
        }
        MergeTarget::SameScheme(_) => {
            check_requantizable(adapters, &layers)?;
            own::refuse_spread(&layers, adapters)?;
        }
    }
    Ok(layers)
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
