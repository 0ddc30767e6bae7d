//! `qoft merge`.

mod alternatives;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow};
use burn::tensor::Device;
use qoft::core::kernels::FloatFormat;
use qoft::core::{Dense, Error, Nearest, QuantBackend, Quantization, Schemes, StagedDir};
use qoft::models::ModelFolder;
use qoft::train::data::{Dataset, Example};
use qoft::{
    Calibration, LayerSearch, MergeLosses, MergeOptions, MergePlan, MergeReport, MergeTarget,
    NewScheme, Registries, ScaledAdapter, StagedMerge,
};

use crate::args::{DtypeArg, MergeArgs, Naming, parse_scheme};
use crate::print::{errln, outln, warnln};
use crate::{calibration, data, files, progress, vocabulary};

/// Rows at once where a loss is measured.
const BATCH_SIZE: usize = 8;
/// Layers in the table on the console.
const LISTED: usize = 10;

/// What is merged.
#[derive(Clone, Copy)]
struct Subject<'a> {
    args: &'a MergeArgs,
    model: &'a ModelFolder,
    schemes: &'a Schemes,
    adapters: &'a [ScaledAdapter],
    registries: &'a Registries,
    /// The scheme of the result, if it is not that of the base model.
    written: Option<&'a Written>,
}

/// How the result is quantized.
struct Written {
    quantization: Quantization,
    skips: Option<Vec<String>>,
    format: Option<FloatFormat>,
}

/// Writes a checkpoint with adapters multiplied into its weights.
pub fn run(args: &MergeArgs, registries: &Registries) -> Result<()> {
    let written = written(args, registries)?;
    let model = base(args, registries)?;
    let adapters = files::adapters(registries, &args.adapter)?;
    let schemes = files::schemes(registries, model.checkpoint(), &args.backend_option)?;
    let subject = Subject {
        args,
        model: &model,
        schemes: &schemes,
        adapters: &adapters,
        registries,
        written: written.as_ref(),
    };
    let options = subject.options(&Nearest);
    let plan = MergePlan::new(&model, &schemes, &adapters, options).map_err(into_dense)?;
    let folder = output(&subject)?;
    let data = match &args.data {
        None => None,
        Some(path) => Some((path, data::for_model(&model, path, args.max_length)?)),
    };
    let calibration = match &args.calibration.calibration {
        None => None,
        Some(path) => {
            subject.tell_of_scales();
            Some(calibrated(subject, path, &folder)?)
        }
    };
    let plan = match &calibration {
        None => plan,
        Some(calibration) => plan.searching(calibration),
    };
    let staged = staged(plan, folder);
    drop(calibration);
    let mut staged = match staged {
        Ok(staged) => staged,
        Err(error @ Error::LittleKept { .. }) => {
            let dataset = data.as_ref().map(|(_, dataset)| dataset);
            return Err(alternatives::with_alternatives(subject, error, dataset));
        }
        Err(error) => return Err(into_dense(error)),
    };
    if let Some((path, dataset)) = &data {
        data::report_losses(path, &dataset.report);
        staged.report.losses = Some(losses(subject, staged.path(), dataset)?);
    }
    if args.report {
        staged.write_report()?;
    }
    let report = staged.commit()?;
    print(args, &report);
    if args.json {
        outln!("{}", report.to_json());
    }
    Ok(())
}

/// What will be the output: a folder, or a file where the base model is one and the output is called
/// like one.
fn output(subject: &Subject) -> Result<StagedDir> {
    let output = &subject.args.output;
    let container = subject.model.checkpoint().container();
    let same = subject.written.is_none() && !subject.args.dequantize;
    let container = container.filter(|container| same && files::is_called(output, *container));
    Ok(match container {
        Some(_) => StagedDir::of_file(output)?,
        None => StagedDir::new(output)?,
    })
}

/// The model that the adapters belong to.
fn base(args: &MergeArgs, registries: &Registries) -> Result<ModelFolder> {
    let (folder, base) = (
        vocabulary::open(registries, &args.model, &args.adapter)?,
        &args.base,
    );
    let is_dense = base.load_in.is_none() && !base.load.asks();
    let load = match args.quantize.is_some() && is_dense {
        // The others say how the result is written.
        true => base.load.of_reading(),
        false => base.load.clone(),
    };
    files::quantized(
        registries,
        folder,
        base.load_in.as_deref(),
        &load,
        &args.adapter,
    )
}

/// The scheme that `--quantize` names.
fn written(args: &MergeArgs, registries: &Registries) -> Result<Option<Written>> {
    let Some(scheme) = &args.quantize else {
        return Ok(None);
    };
    let options = args.base.load.options()?;
    Ok(Some(Written {
        quantization: parse_scheme(scheme, &registries.schemes, Naming::Merged)?,
        skips: options.skips,
        format: options.format,
    }))
}

impl<'a> Subject<'a> {
    /// Says what calibration data does when a dense model is quantized, and not here: other weights than
    /// those of the layers would change, and what is kept of the adapters could not be told.
    fn tell_of_scales(self) {
        let Some(written) = self.written.filter(|w| w.quantization.scales_inputs()) else {
            return;
        };
        let scheme = written.quantization.backend();
        warnln!(
            "codes are chosen by the calibration data, but input features are not scaled by it, since that \
             changes norms and other layers as well; `qoft quantize --scheme {scheme} --calibration` does \
             that with the model that `qoft merge --dequantize` writes"
        );
    }

    fn target(self, search: &'a dyn LayerSearch) -> MergeTarget<'a> {
        match self.written {
            Some(written) => {
                let mut scheme =
                    NewScheme::new(&self.registries.schemes, &written.quantization, search);
                scheme.skips = written.skips.as_deref();
                scheme.format = written.format;
                MergeTarget::NewScheme(scheme)
            }
            None if self.args.dequantize => {
                let dtype = self.args.dtype.unwrap_or(DtypeArg::F32);
                MergeTarget::Dense(dtype.into())
            }
            None => MergeTarget::SameScheme(search),
        }
    }

    fn options(self, search: &'a dyn LayerSearch) -> MergeOptions<'a> {
        let (args, options) = (self.args, MergeOptions::new(self.target(search)));
        let options = options.min_kept(args.min_kept.unwrap_or(options.min_kept));
        options.max_shard_size(args.max_shard_size.unwrap_or_default())
    }
}

fn staged(plan: MergePlan, folder: StagedDir) -> Result<StagedMerge, Error> {
    let bar = progress::bar("merging", 0);
    let staged = qoft::merge_staged(plan, folder, &progress::follow(&bar));
    bar.finish_and_clear();
    staged
}

/// Says what can be done where a scheme cannot be written.
fn into_dense(error: Error) -> anyhow::Error {
    match error {
        Error::Requantize { .. } => anyhow!("{error}; --dequantize writes dense weights instead"),
        other => other.into(),
    }
}

/// What the adapted model's layers have as inputs on the first rows of a data file. The files wait
/// in the folder that is being written, where there has to be room for a model.
fn calibrated(subject: Subject, path: &Path, folder: &StagedDir) -> Result<Calibration> {
    let Subject { args, model, .. } = subject;
    let dataset = data::for_model(model, path, args.max_length)?;
    let rows = calibration::rows(&args.calibration, &dataset);
    // All of them get codes in a new scheme.
    let all = subject.written.is_some();
    let changed = |layer: &str| {
        let mut adapters = subject.adapters.iter();
        all || adapters.any(|adapter| adapter.changes(layer))
    };
    collected(subject, rows, &changed, folder.path())
}

/// The inputs of the adapted model's layers whose paths are `wanted`.
fn collected(
    subject: Subject,
    examples: &[Example],
    wanted: &dyn Fn(&str) -> bool,
    folder: &Path,
) -> Result<Calibration> {
    let device = Device::flex();
    let mut model = files::load(subject.model, subject.schemes, &device)?;
    files::attach(&mut model, subject.adapters, &subject.args.model, &device)?;
    calibration::collect(&model, examples, wanted, folder, &device)
}

/// The loss with the adapters beside the weights, and that of the merged folder.
fn losses(subject: Subject, merged: &Path, dataset: &Dataset) -> Result<MergeLosses> {
    let device = Device::flex();
    let options = &subject.args.backend_option;
    let mut adapted = files::load(subject.model, subject.schemes, &device)?;
    files::attach(&mut adapted, subject.adapters, &subject.args.model, &device)?;
    let before = files::evaluate(&adapted, dataset, BATCH_SIZE, &device)?;
    drop(adapted);
    let merged = files::model(subject.registries, merged, options, &device)?;
    let after = files::evaluate(&merged, dataset, BATCH_SIZE, &device)?;
    Ok(MergeLosses::between(&before, &after))
}

fn print(args: &MergeArgs, report: &MergeReport) {
    if args.report {
        table(report);
    }
    if let Some(losses) = report.losses {
        errln!(
            "loss {:.6} with the adapters, {:.6} merged, on {} tokens",
            losses.adapted,
            losses.merged,
            progress::grouped(losses.tokens)
        );
    }
    let done = match &args.quantize {
        Some(_) => "written in the new scheme",
        None => "merged",
    };
    errln!(
        "{}: {} layers {done}, {} tensors, {}",
        args.output.display(),
        report.layers.len(),
        report.tensors,
        progress::bytes(report.bytes as u64)
    );
    warn_of_own_codes(args, report);
    say_kept(args, report);
}

/// Names the schemes that did not use the calibration data. Dense layers have no codes to choose.
fn warn_of_own_codes(args: &MergeArgs, report: &MergeReport) {
    let layers = report.layers.iter();
    let own = layers.filter(|layer| !layer.searched && layer.backend != Dense.name());
    let own: Vec<&str> = own.map(|layer| layer.backend).collect();
    if args.calibration.calibration.is_none() || own.is_empty() {
        return;
    }
    let schemes: Vec<&str> = own
        .iter()
        .copied()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    warnln!(
        "--calibration changes nothing in {} of {} layers ({}), whose scheme chooses \
         codes in its own way",
        own.len(),
        report.layers.len(),
        schemes.join(", ")
    );
}

/// Says how much of the change is in the written weights, where some of it may not be.
fn say_kept(args: &MergeArgs, report: &MergeReport) {
    if args.dequantize || report.layers.is_empty() {
        return;
    }
    let kept = report.kept();
    let (share, of) = match kept.outputs {
        Some(share) => (share, "the layers' outputs"),
        None => (kept.weights, "the weights"),
    };
    // Rounding may undo a little more than the change; that is nothing, without a sign.
    let share = (100.0 * share).round() + 0.0;
    if share < 100.0 * MergeOptions::MIN_KEPT {
        warnln!(
            "{share:.0} % of what the adapters change of {of} is in the merged weights: the rest is \
             too small for this scheme's numbers and was rounded away"
        );
    } else {
        errln!("{share:.0} % of what the adapters change of {of} is in the merged weights");
    }
}

/// The layers that lost most, and all kinds of layers.
fn table(report: &MergeReport) {
    errln!(
        "{:<44} {:<10} {:>14} {:>8} {:>6} {:>18}",
        "layer, worst first",
        "backend",
        "relative error",
        "change",
        "kept",
        "off orthogonality"
    );
    let layers = report.worst_first();
    for layer in layers.iter().take(LISTED) {
        errln!(
            "{:<44} {:<10} {:>14.2e} {:>8.1e} {:>4.0} % {:>18.2e}",
            layer.name,
            layer.backend,
            layer.relative_error,
            layer.change.relative,
            100.0 * layer.change.kept,
            layer.orthogonality_error
        );
    }
    if layers.len() > LISTED {
        let more = layers.len() - LISTED;
        errln!("… and {more} more in merge_report.json");
    }
    errln!();
    errln!(
        "{:<44} {:>10} {:>14} {:>14} {:>6}",
        "kind",
        "layers",
        "mean error",
        "worst error",
        "kept"
    );
    for kind in report.kinds() {
        errln!(
            "{:<44} {:>10} {:>14.2e} {:>14.2e} {:>4.0} %",
            kind.kind,
            kind.layers,
            kind.mean,
            kind.worst,
            100.0 * kind.change_kept
        );
    }
    errln!(
        "change kept, all layers: {:.1} %",
        100.0 * report.change_kept()
    );
    errln!();
}
