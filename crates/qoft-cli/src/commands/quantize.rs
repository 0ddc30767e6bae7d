//! `qoft quantize`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::Device;
use qoft::core::{BackendOptions, Nearest, StagedDir};
use qoft::train::data::Dataset;
use qoft::{LayerSearch, QuantizeLosses, QuantizeReport, Registries};

use crate::args::QuantizeArgs;
use crate::print::{errln, outln};
use crate::{calibration, data, files, progress};

/// Rows at once where a loss is measured.
const BATCH_SIZE: usize = 8;
/// Layers in the table on the console.
const LISTED: usize = 10;

/// Writes a dense checkpoint as a quantized one.
pub fn run(args: &QuantizeArgs, registries: &Registries) -> Result<()> {
    let registry = &registries.schemes;
    let Some(quantization) = args.load.quantization(args.scheme.as_deref(), registry)? else {
        bail!(
            "no scheme is named: --scheme SCHEME[,KEY=VALUE…], --load-in-4bit, --load-in-8bit or \
             --quantization-config FILE; `qoft backends` lists the schemes that can be written"
        );
    };
    let model = files::open(registries, &args.model)?;
    let folder = StagedDir::new(&args.output)?;
    let data = match &args.data {
        None => None,
        Some(path) => Some((path, data::for_model(&model, path, args.max_length)?)),
    };
    let mut options = args.load.options()?;
    options.max_shard_size = args.max_shard_size.unwrap_or_default();
    let mut calibration = match &args.calibration.calibration {
        None => None,
        Some(path) => {
            let schemes = registry.open(model.checkpoint(), &BackendOptions::default())?;
            let layers = qoft::layers_to_quantize(&model, &schemes, &quantization, &options)?;
            let dataset = data::for_model(&model, path, args.max_length)?;
            data::report_losses(path, &dataset.report);
            let rows = calibration::rows(&args.calibration, &dataset);
            let wanted: BTreeSet<String> = layers.into_iter().collect();
            let wanted = |path: &str| wanted.contains(path);
            let device = Device::flex();
            let dense = files::load(&model, &schemes, &device)?;
            let calibration = calibration::collect(&dense, rows, &wanted, folder.path(), &device)?;
            Some(calibration)
        }
    };
    let mut model = model;
    if let Some(calibration) = calibration
        .as_mut()
        .filter(|_| quantization.scales_inputs())
    {
        let bar = progress::bar("scaling", 0);
        model = qoft::scale_inputs(
            &model,
            registry,
            &quantization,
            &options,
            calibration,
            folder.path(),
            &mut progress::follow(&bar),
        )?;
        bar.finish_and_clear();
    }
    let search: &dyn LayerSearch = match &calibration {
        None => &Nearest,
        Some(calibration) => calibration,
    };
    let bar = progress::bar("quantizing", 0);
    let staged = qoft::quantize_staged(
        &model,
        registry,
        &quantization,
        &options,
        search,
        folder,
        &progress::follow(&bar),
    );
    bar.finish_and_clear();
    drop(calibration);
    let mut staged = staged?;
    if let Some((path, dataset)) = &data {
        data::report_losses(path, &dataset.report);
        staged.report.losses = Some(losses(registries, [&args.model, staged.path()], dataset)?);
    }
    if args.report {
        staged.write_report()?;
    }
    let report = staged.commit()?;
    print(args, &report);
    if args.json {
        outln!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

fn losses(
    registries: &Registries,
    [dense, quantized]: [&Path; 2],
    dataset: &Dataset,
) -> Result<QuantizeLosses> {
    let device = Device::flex();
    let loss = |folder: &Path| {
        let model = files::model(registries, folder, &[], &device)?;
        files::evaluate(&model, dataset, BATCH_SIZE, &device)
    };
    let (before, after) = (loss(dense)?, loss(quantized)?);
    Ok(QuantizeLosses::between(&before, &after))
}

fn print(args: &QuantizeArgs, report: &QuantizeReport) {
    if args.report {
        table(report);
    }
    if let Some(losses) = report.losses {
        errln!(
            "loss {:.6} dense, {:.6} quantized, on {} tokens",
            losses.dense,
            losses.quantized,
            progress::grouped(losses.tokens)
        );
    }
    errln!(
        "{}: {} layers quantized ({}), {} tensors, {}",
        args.output.display(),
        report.layers.len(),
        report.backend,
        report.tensors,
        progress::bytes(report.bytes as u64)
    );
}

/// The layers that lost most.
fn table(report: &QuantizeReport) {
    errln!(
        "{:<52} {:>14} {:>14}",
        "layer, worst first",
        "relative error",
        "of outputs"
    );
    let layers = report.worst_first();
    for layer in layers.iter().take(LISTED) {
        let outputs = layer.output_error;
        let outputs = outputs.map_or("-".to_owned(), |error| format!("{error:.2e}"));
        let (name, weights) = (&layer.name, layer.relative_error);
        errln!("{name:<52} {weights:>14.2e} {outputs:>14}");
    }
    if layers.len() > LISTED {
        let more = layers.len() - LISTED;
        errln!("… and {more} more in quantize_report.json");
    }
    errln!();
}
