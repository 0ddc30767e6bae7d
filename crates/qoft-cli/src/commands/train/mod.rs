//! `qoft train`.

mod card;
mod console;
mod learned;
mod page;
mod rows;
mod setup;
mod start;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use qoft::Registries;
use qoft::core::write_file;
use qoft::train::data::Dataset;
use qoft::train::group::decide;
use qoft::train::model_facts;
use qoft::train::preference::PreferenceData;
use qoft::train::train::{History, RunFolder, Summary};
use serde_json::json;

use crate::args::{Reports, RunOptions, TrainArgs};
use crate::print::{errln, outln, warnln};
use crate::processes::Processes;
use crate::progress;
use crate::stop::Stopped;
use crate::trained_on;

use card::Card;
pub use console::{Beside, follow};
pub use learned::Learned;
pub use setup::{Settings, Setup, trainable_line};
use start::Origin;

/// Fine-tunes a checkpoint. The options of `--config` are among `args`.
pub fn run(args: &TrainArgs, registries: &Registries, processes: &Processes) -> Result<()> {
    let started = Instant::now();
    // What is wrong with it is said before what else is missing.
    let named = match processes.is_first() {
        true => start::named_checkpoint(args)?,
        false => None,
    };
    args.required()?;
    let settings = Settings::new(args, registries)?;
    let beginning = Beginning {
        named,
        started,
        processes,
    };
    match settings.prefers() {
        false => learn::<Dataset>(args, registries, settings, beginning),
        true => learn::<PreferenceData>(args, registries, settings, beginning),
    }
}

/// What is known before anything is loaded.
struct Beginning<'a> {
    /// The checkpoint that the options name.
    named: Option<PathBuf>,
    started: Instant,
    processes: &'a Processes,
}

fn learn<D: Learned>(
    args: &TrainArgs,
    registries: &Registries,
    settings: Settings,
    beginning: Beginning,
) -> Result<()> {
    let Beginning {
        named,
        started,
        processes,
    } = beginning;
    let (_, _, output) = args.required()?;
    let reports = args.reports()?;
    let options = RunOptions::new(args)?;
    let (group, is_first) = (processes.group(), processes.is_first());
    let folder = match is_first {
        true => RunFolder::open(output)?,
        false => RunFolder::of_another(output),
    };
    // The others may find in the folder what the first one did in it meanwhile.
    let (origin, batches) = decide(group, || -> Result<(Origin, usize)> {
        let origin = Origin::find(args, named, &options, &folder)?;
        let batches = origin.batches(&options, group.size())?;
        Ok((origin, batches))
    })?;
    let settings = settings.with_batches(batches);
    let (setup, model) = Setup::<D>::load(args, registries, settings, processes)?;
    if is_first {
        start::remove_earlier(args, &folder)?;
    }
    let mut trainer = setup.trainer(&folder);
    trainer.start = origin.start();
    trainer.group = group;
    let loading = started.elapsed().as_secs_f64();
    let beside = is_first.then(|| Beside {
        options: &options,
        tokenizer: setup.small_files.path(),
    });
    let tensorboard = reports.tensorboard && is_first;
    let run = follow(&trainer, model, beside, tensorboard);
    let (_, summary) = match (run, &origin) {
        (Err(error), Origin::Weights(_)) => {
            let (model, _) = args.required_inputs()?;
            return Err(trained_on::with_models(error, model));
        }
        (run, _) => run?,
    };
    if summary.adapter.is_some() && is_first {
        let history = History::read(output).unwrap_or_default();
        let card = Card {
            adapter: &*setup.adapter_config,
            model_type: model_facts(&setup.spec).model_type,
            options: options.into_options(),
            rows: setup.data.dataset.count(),
            last_loss: history.steps.last().map(|step| step.loss),
            summary: &summary,
        };
        if let Err(error) = write_beside(&card, &history, reports, output) {
            warnln!("{error}");
        }
    }
    setup.data.report_losses();
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
fn write_beside(card: &Card, history: &History, reports: Reports, output: &Path) -> Result<()> {
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
            "final_metrics": summary.final_metrics,
            "eval_loss": summary.eval_loss,
            "eval_metrics": summary.eval_metrics,
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
