//! Opening what the commands need: checkpoint, model, tokenizer, data.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use qoft::core::{BackendOptions, Checkpoint, LoadOptions, Registry, oft};
use qoft::models::CausalLm;
use qoft::train::data::{Dataset, DatasetOptions};
use qoft::train::tokenizer::Tokenizer;

use crate::args::ModelArgs;
use crate::progress;

/// A device by its name.
pub fn device(name: &str) -> Result<Device> {
    qoft::device(name).with_context(|| {
        format!(
            "unknown device `{name}`; this build has: {}",
            qoft::DEVICES.join(", ")
        )
    })
}

/// Loads a frozen model.
pub fn model(path: &Path, backend_options: &[String], device: &Device) -> Result<CausalLm> {
    let checkpoint = Checkpoint::open(path)?;
    let options = LoadOptions {
        backend: BackendOptions::parse(backend_options)?,
        ..LoadOptions::default()
    };
    let bar = progress::bar("loading", 0);
    let model = CausalLm::load(
        &checkpoint,
        &Registry::linked()?,
        &options,
        device,
        &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    );
    bar.finish_and_clear();
    Ok(model?)
}

/// Loads a model with its adapters, to compute with and not to train.
pub fn adapted_model(args: &ModelArgs) -> Result<CausalLm> {
    let device = device(&args.device)?;
    let mut model = model(&args.model, &args.backend_option, &device)?;
    let model_type = model.config().model_type.clone();
    for (index, folder) in args.adapter.iter().enumerate() {
        let name = if index == 0 {
            "default".into()
        } else {
            format!("adapter_{index}")
        };
        oft::load(
            &mut model,
            folder,
            &model_type,
            CausalLm::HEAD,
            &name,
            &device,
        )?;
    }
    Ok(model)
}

/// Reads a data file.
pub fn dataset(
    path: &Path,
    tokenizer: &Tokenizer,
    vocab_size: usize,
    max_length: Option<usize>,
) -> Result<Dataset> {
    let bar = indicatif::ProgressBar::new_spinner();
    let options = DatasetOptions {
        vocab_size,
        max_length,
    };
    let mut count = |rows: usize| {
        bar.set_message(format!("{} rows read", progress::grouped(rows)));
        bar.tick();
    };
    let dataset = Dataset::load(path, tokenizer, &options, Some(&mut count));
    bar.finish_and_clear();
    Ok(dataset?)
}

/// Tells what a data file lost on the way in.
pub fn report_losses(path: &Path, dataset: &Dataset) {
    let report = &dataset.report;
    if report.cut_rows > 0 {
        eprintln!(
            "{}: {} of {} rows were longer than --max-length and lost {} tokens",
            path.display(),
            report.cut_rows,
            report.rows,
            progress::grouped(report.cut_tokens)
        );
    }
    if report.unpredictable_rows > 0 {
        eprintln!(
            "{}: {} of {} rows have nothing to predict",
            path.display(),
            report.unpredictable_rows,
            report.rows
        );
    }
}

/// The tokenizer of a model folder; its absence matters only to text.
pub fn tokenizer(model: &Path) -> Result<Tokenizer> {
    Ok(Tokenizer::from_dir(model)?)
}
