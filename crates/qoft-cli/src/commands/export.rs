//! `qoft export`.

use anyhow::{Context, Result, bail};
use qoft::core::StagedDir;
use qoft::core::kernels::FloatFormat;
use qoft::models::ModelFolder;
use qoft::{LoraReport, MergeOptions, MergePlan, MergeTarget, NewContainer, Registries};

use crate::args::{ExportArgs, ExportForm};
use crate::print::{errln, outln};
use crate::{files, progress, vocabulary};

/// Writes adapters in the form of another method.
pub fn run(args: &ExportArgs, registries: &Registries) -> Result<()> {
    match args.to {
        ExportForm::Lora => lora(args, registries),
        ExportForm::Gguf => container(args, registries, "gguf"),
    }
}

/// The model that the adapters belong to.
fn base(args: &ExportArgs, registries: &Registries) -> Result<ModelFolder> {
    let (folder, base) = (
        vocabulary::open(registries, &args.model, &args.adapter)?,
        &args.base,
    );
    files::quantized(
        registries,
        folder,
        base.load_in.as_deref(),
        &base.load,
        &args.adapter,
    )
}

/// Writes the model with the adapters in a file format of its own.
fn container(args: &ExportArgs, registries: &Registries, name: &str) -> Result<()> {
    if args.rank.is_some() {
        bail!("--rank is for --to lora; a {name} file has whole weights");
    }
    // Its files and its layers come from one crate.
    registries.schemes.backend(name)?;
    let mut all = registries.containers.containers();
    let container = all.find(|container| container.name() == name);
    let container = container.with_context(|| format!("nothing here writes {name} files"))?;
    let numbers = args.gguf_type.as_deref().map(str::to_lowercase);
    let form = NewContainer::new(container).numbers(numbers.as_deref());
    let folder = base(args, registries)?;
    let schemes = files::schemes(registries, folder.checkpoint(), &args.backend_option)?;
    let adapters = files::adapters(registries, &args.adapter)?;
    let options = MergeOptions::new(MergeTarget::Dense(FloatFormat::F32)).container(form);
    let plan = MergePlan::new(&folder, &schemes, &adapters, options)?;
    let staged = match files::is_called(&args.output, container) {
        true => StagedDir::of_file(&args.output)?,
        false => StagedDir::new(&args.output)?,
    };
    let bar = progress::bar("writing", 0);
    let written = qoft::merge_staged(plan, staged, &progress::follow(&bar));
    bar.finish_and_clear();
    let report = written?.commit()?;
    if args.json {
        outln!("{}", report.to_json());
    }
    errln!(
        "{}: {} tensors, {} layers with adapters",
        args.output.display(),
        report.tensors,
        report.layers.len()
    );
    Ok(())
}

fn lora(args: &ExportArgs, registries: &Registries) -> Result<()> {
    if args.gguf_type.is_some() {
        bail!("--gguf-type is for --to gguf");
    }
    let rank = args.rank.context("a LoRA needs a --rank")?;
    let folder = base(args, registries)?;
    let adapters = files::adapters(registries, &args.adapter)?;
    let bar = progress::bar("decomposing", 0);
    let report = qoft::export_lora(
        &folder,
        &files::schemes(registries, folder.checkpoint(), &args.backend_option)?,
        &adapters,
        rank,
        &args.output,
        &progress::follow(&bar),
    );
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        outln!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    let own = match report.own {
        0 => String::new(),
        own => format!(" and {own} tensors of biases and whole modules"),
    };
    errln!(
        "{}: a LoRA of rank {} for {} layers{own}, {}",
        args.output.display(),
        report.rank,
        report.layers.len(),
        progress::bytes(report.bytes as u64)
    );
    Ok(())
}

fn print(report: &LoraReport) {
    outln!(
        "{:<44} {:<10} {:>10} {:>10}",
        "layer",
        "backend",
        "change",
        "residual"
    );
    for layer in &report.layers {
        outln!(
            "{:<44} {:<10} {:>10.2e} {:>10.2e}",
            layer.name,
            layer.backend,
            layer.change,
            layer.residual
        );
    }
    let residuals = || report.layers.iter().map(|layer| layer.residual);
    let mean = residuals().sum::<f64>() / report.layers.len().max(1) as f64;
    let worst = residuals().fold(0.0, f64::max);
    outln!();
    outln!("residual: mean {mean:.2e}, worst {worst:.2e}");
}
