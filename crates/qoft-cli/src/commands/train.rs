//! `qoft train`.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;
use qoft::core::{Error, trainable_parameters};
use qoft::models::CausalLm;
use qoft::peft;
use qoft::train::Evaluation;
use qoft::train::data::Dataset;
use qoft::train::train::{ADAPTER, Observer, StepReport, Summary, Trainer};
use serde_json::json;

use crate::args::{AdapterArg, TrainArgs};
use crate::print::{errln, outln};
use crate::stop::{self, Graceful, Stopped};
use crate::{files, progress};

/// Fine-tunes a checkpoint. The options of `--config` are among `args`.
pub fn run(args: &TrainArgs) -> Result<()> {
    let started = Instant::now();
    let model_dir = args.required("model", &args.model)?;
    let data = args.required("data", &args.data)?.to_path_buf();
    let output = args.required("output", &args.output)?;
    if args.resume_from.is_none() {
        refuse_occupied(output)?;
    }
    let (config, adapter_config) = (args.train_config()?, args.adapter_config()?);
    let frozen_args = args.frozen()?;
    let frozen = files::adapters(&frozen_args)?;
    let frozen_names = frozen_names(&frozen_args)?;
    let device = files::device(args.device.as_deref())?;
    let backend_options = args.backend_option.clone().unwrap_or_default();

    let mut model = files::model(model_dir, &backend_options, &device)?;
    let tokenizer = files::tokenizer(model_dir)?;
    let max_length = Some(args.max_length.unwrap_or(1024));
    let dataset = files::dataset(&data, &tokenizer, model.config(), max_length)?;
    let eval_data = args.eval_data.as_ref();
    let eval_dataset = eval_data
        .map(|path| files::dataset(path, &tokenizer, model.config(), max_length))
        .transpose()?;

    let (model_type, head) = (model.config().model_type.clone(), model.head().to_owned());
    files::attach(&mut model, &frozen, &device)?;
    let autodiff = device.autodiff();
    peft::attach(
        &mut model,
        &*adapter_config,
        &model_type,
        &head,
        ADAPTER,
        &autodiff,
    )?;
    errln!("{}", trainable_line(&model));
    let trainer = Trainer {
        config: &config,
        adapter_config: &*adapter_config,
        frozen: &frozen_names,
        dataset: &dataset,
        eval_dataset: eval_dataset.as_ref(),
        out_dir: output,
        resume_from: args.resume_from.as_deref(),
    };
    let loading = started.elapsed().as_secs_f64();
    let (_, summary) = follow(&trainer, model)?;
    report(&summary, &data, &dataset, output);
    if let (Some(path), Some(dataset)) = (eval_data, &eval_dataset) {
        files::report_losses(path, dataset);
    }
    if args.json.unwrap_or(false) {
        let adapter = (!summary.interrupted).then(|| output.display().to_string());
        let checkpoint = summary
            .checkpoint
            .as_ref()
            .map(|path| path.display().to_string());
        outln!(
            "{}",
            json!({
                "steps": summary.steps,
                "first_loss": summary.first_loss,
                "final_loss": summary.final_loss,
                "loading_seconds": loading,
                "seconds": summary.seconds,
                "tokens": summary.tokens,
                "interrupted": summary.interrupted,
                "adapter": adapter,
                "checkpoint": checkpoint,
            })
        );
    }
    if summary.interrupted {
        return Err(Stopped.into());
    }
    Ok(())
}

/// What a checkpoint of the training says about the adapters below.
fn frozen_names(adapters: &[AdapterArg]) -> Result<Vec<String>> {
    let name = |adapter: &AdapterArg| {
        let folder = &adapter.folder;
        let folder = folder.canonicalize().map_err(Error::io(folder))?;
        Ok(format!("{}={}", folder.display(), adapter.strength))
    };
    adapters.iter().map(name).collect()
}

/// Fails if a new run would mix its files with others.
fn refuse_occupied(output: &Path) -> Result<()> {
    let occupied = std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some());
    anyhow::ensure!(
        !occupied,
        "{}: the output folder exists and is not empty; --resume-from continues a run",
        output.display()
    );
    Ok(())
}

/// Runs a trainer with a progress bar; Ctrl-C stops it after the step it is in.
pub fn follow(trainer: &Trainer, model: CausalLm) -> Result<(CausalLm, Summary)> {
    let _ends_by_itself = Graceful::begin();
    let bar = progress::bar("training", trainer.total_steps());
    let mut events = Console { bar: bar.clone() };
    let result = trainer.run(model, &mut events, stop::requested());
    bar.finish_and_clear();
    Ok(result?)
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

fn report(summary: &Summary, data: &Path, dataset: &Dataset, output: &Path) {
    files::report_losses(data, dataset);
    if let (Some(first), Some(last)) = (summary.first_loss, summary.final_loss) {
        errln!(
            "{} steps, {} tokens in {:.1} s; loss {first:.4} at the first step, {last:.4} at the last",
            summary.steps,
            progress::grouped(summary.tokens),
            summary.seconds
        );
    }
    match (&summary.checkpoint, summary.interrupted) {
        (Some(checkpoint), true) => errln!(
            "stopped after step {}; go on with the same command and --resume-from {}",
            summary.steps,
            checkpoint.display()
        ),
        _ => errln!(
            "adapter, log.jsonl and loss.svg are in {}",
            output.display()
        ),
    }
}

/// Shows a run on the terminal.
struct Console {
    bar: ProgressBar,
}

impl Observer for Console {
    fn step(&mut self, report: &StepReport) {
        self.bar.set_position(report.step as u64);
        let eta = report.eta.as_secs();
        self.bar.set_message(format!(
            "loss {:.4}  {:.0} tokens/s  {}:{:02} left",
            report.loss,
            report.tokens_per_second,
            eta / 60,
            eta % 60
        ));
        if report.log {
            self.line(&format!(
                "step {}/{}  loss {:.4}  learning rate {:.2e}  grad norm {:.3}  {:.0} tokens/s",
                report.step,
                report.total,
                report.loss,
                report.lr,
                report.grad_norm,
                report.tokens_per_second
            ));
        }
    }

    fn eval(&mut self, step: usize, evaluation: &Evaluation) {
        self.line(&format!(
            "step {step}  evaluation loss {:.4}  perplexity {:.2}",
            evaluation.loss, evaluation.perplexity
        ));
    }

    fn saved(&mut self, folder: &Path) {
        self.line(&format!("saved {}", folder.display()));
    }
}

impl Console {
    /// A line above the bar, also where stderr is a file.
    fn line(&self, text: &str) {
        self.bar.suspend(|| errln!("{text}"));
    }
}
