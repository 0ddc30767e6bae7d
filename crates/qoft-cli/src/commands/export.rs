//! `qoft export`.

use anyhow::Result;
use qoft::LoraReport;

use crate::args::{ExportArgs, ExportForm};
use crate::print::{errln, outln};
use crate::{files, progress};

/// Writes adapters in the form of another method.
pub fn run(args: &ExportArgs) -> Result<()> {
    match args.to {
        ExportForm::Lora => lora(args),
    }
}

fn lora(args: &ExportArgs) -> Result<()> {
    let (folder, base) = (files::open(&args.model)?, &args.base);
    let folder = files::quantized(folder, base.load_in.as_deref(), &base.load, &args.adapter)?;
    let adapters = files::adapters(&args.adapter)?;
    let bar = progress::bar("decomposing", 0);
    let report = qoft::export_lora(
        &folder,
        &files::schemes(folder.checkpoint(), &args.backend_option)?,
        &adapters,
        args.rank,
        &args.output,
        &|done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
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
