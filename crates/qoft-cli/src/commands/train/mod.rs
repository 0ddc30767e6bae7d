//! `qoft train`.

mod card;
mod console;
mod page;
mod rows;
mod start;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use qoft::core::{Error, trainable_parameters, write_file};
use qoft::models::CausalLm;
use qoft::train::model_facts;
use qoft::train::train::{ADAPTER, Below, Digest, History, RunFolder, Summary, Trainer};
use qoft::{Registries, peft};
use serde_json::json;

use crate::args::{AdapterArg, Reports, RunOptions, TrainArgs};
use crate::print::{errln, outln, warnln};
use crate::stop::Stopped;
use crate::{data, files, progress};

use card::Card;
pub use console::follow;
use rows::TrainingData;
use start::Origin;

/// Fine-tunes a checkpoint. The options of `--config` are among `args`.
pub fn run(args: &TrainArgs, registries: &Registries) -> Result<()> {
    let started = Instant::now();
    // What is wrong with it is said before what else is missing.
    let named = start::named_checkpoint(args)?;
    let (model_dir, sources, output) = args.required()?;
    let (config, adapter_config) = (
        args.training.config()?,
        args.adapter_config(&registries.families)?,
    );
    config.validate_evaluation(args.eval_data.is_some() || args.val_size.is_some())?;
    for line in args.unused(&config)? {
        warnln!("{line}");
    }
    let reports = args.reports()?;
    let options = RunOptions::new(args)?;
    let folder = RunFolder::open(output)?;
    let origin = Origin::find(args, named, &options, &folder)?;
    let frozen_args = args.frozen()?;
    let frozen = files::adapters(registries, &frozen_args)?;
    let below = below(&frozen_args)?;
    let device = files::device(args.device.as_deref())?;
    let backend_options = args.backend_option.clone().unwrap_or_default();

    // The digest is that of the files, before tensors get the names that they have in the model.
    let checkpoint = files::checkpoint(registries, model_dir)?;
    let dense = (!args.quantizes()).then(|| Digest::of_checkpoint(&checkpoint));
    let base_folder = files::described(registries, checkpoint)?;
    let tokenizer = args.reading.tokenizer(files::tokenizer(&base_folder)?)?;
    let scheme = args.quantize.as_deref();
    let base_folder = files::quantized(registries, base_folder, scheme, &args.load, &frozen_args)?;
    let base = dense.unwrap_or_else(|| Digest::of_checkpoint(base_folder.checkpoint()))?;
    let schemes = files::schemes(registries, base_folder.checkpoint(), &backend_options)?;
    let mut model = files::load(&base_folder, &schemes, &device)?;
    model.set_router_aux_loss_coef(args.router_aux_loss_coef.unwrap_or(0.0))?;
    let reading = data::For {
        tokenizer: &tokenizer,
        model: model.config(),
        max_length: args.max_length,
    };
    let data = TrainingData::read(args, &sources, reading, config.seed)?;

    let spec = model.spec().clone();
    files::attach(&mut model, &frozen, &device)?;
    let autodiff = device.autodiff();
    peft::attach(
        &mut model,
        &*adapter_config,
        model_facts(&spec),
        ADAPTER,
        config.seed,
        &autodiff,
    )?;
    qoft::check_trainable(&base_folder, &schemes, &model)?;
    drop((base_folder, schemes));
    errln!("{}", trainable_line(&model));
    let mut trainer = Trainer::new(&config, &*adapter_config, &data.dataset, &folder);
    trainer.base = Some(&base);
    trainer.below = &below;
    trainer.eval_dataset = data.eval_dataset.as_ref();
    trainer.start = origin.start();
    let loading = started.elapsed().as_secs_f64();
    let (_, summary) = follow(&trainer, model, Some(&options), reports.tensorboard)?;
    if summary.adapter.is_some() {
        let history = History::read(output).unwrap_or_default();
        let card = Card {
            adapter: &*adapter_config,
            model_type: model_facts(&spec).model_type,
            options: options.into_options(),
            rows: data.dataset.report.rows,
            last_loss: history.steps.last().map(|step| step.loss),
            summary: &summary,
        };
        if let Err(error) = write_beside(&card, &history, reports, model_dir, output) {
            warnln!("{error}");
        }
    }
    data.report_losses();
    report(&summary, output);
    if args.json.unwrap_or(false) {
        print_json(&summary, loading);
    }
    if summary.interrupted {
        return Err(Stopped.into());
    }
    Ok(())
}

/// What belongs beside a trained adapter.
fn write_beside(
    card: &Card,
    history: &History,
    reports: Reports,
    model_dir: &Path,
    output: &Path,
) -> Result<()> {
    qoft::copy_tokenizer(model_dir, output)?;
    card.write(output)?;
    if reports.csv {
        write_file(&output.join("log.csv"), history.to_csv().as_bytes())?;
    }
    page::write(output, history, card.summary, &card.options)
}

fn print_json(summary: &Summary, loading: f64) {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| p.display().to_string());
    outln!(
        "{}",
        json!({
            "start": summary.start,
            "steps": summary.steps,
            "first_loss": summary.first_loss,
            "final_loss": summary.final_loss,
            "eval_loss": summary.eval_loss,
            "loading_seconds": loading,
            "seconds": summary.seconds,
            "tokens": summary.tokens,
            "interrupted": summary.interrupted,
            "stopped_early": summary.stopped_early,
            "best": summary.best,
            "adapter": path(&summary.adapter),
            "checkpoint": path(&summary.checkpoint),
        })
    );
}

/// What the files of the training say about the adapters below.
fn below(adapters: &[AdapterArg]) -> Result<Vec<Below>, Error> {
    let below = |adapter: &AdapterArg| Below::new(&adapter.folder, adapter.strength);
    adapters.iter().map(below).collect()
}

/// The numbers of parameters, as PEFT prints them.
pub fn trainable_line(model: &CausalLm) -> String {
    let (trainable, all) = trainable_parameters(model);
    format!(
        "trainable params: {} || all params: {} || trainable%: {:.4}",
        progress::grouped(trainable),
        progress::grouped(all),
        100.0 * trainable as f64 / all as f64
    )
}

fn report(summary: &Summary, output: &Path) {
    if let (Some(first), Some(last)) = (summary.first_loss, summary.final_loss) {
        let steps = summary.steps - summary.start;
        let before = match summary.start {
            0 => String::new(),
            before => format!(" after the {before} before"),
        };
        errln!(
            "{steps} steps{before}, {} tokens in {:.1} s; loss {first:.4} at the first step, \
             {last:.4} at the last",
            progress::grouped(summary.tokens),
            summary.seconds
        );
    }
    if summary.stopped_early {
        errln!(
            "stopped early, after step {}: the evaluations were no longer better",
            summary.steps
        );
    }
    if let Some(best) = summary.best {
        errln!("the adapter is the one after step {best}, with the lowest evaluation loss");
    }
    match (&summary.adapter, &summary.checkpoint) {
        (Some(_), _) if summary.interrupted => errln!(
            "stopped in the evaluation at the end; the adapter is in {}",
            output.display()
        ),
        (Some(_), _) => errln!(
            "adapter, report.html and log.jsonl are in {}",
            output.display()
        ),
        (None, Some(checkpoint)) => errln!(
            "stopped after step {}, which {} has; the same command goes on",
            summary.steps,
            checkpoint.display()
        ),
        (None, None) => errln!(
            "stopped after step {}, before there was anything to save",
            summary.steps
        ),
    }
}
