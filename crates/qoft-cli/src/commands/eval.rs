//! `qoft eval`.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use burn::tensor::Device;
use qoft::Registries;
use qoft::models::CausalLm;
use qoft::train::data::{AnswerTokens, Dataset, Example, RawRow, Split};
use qoft::train::group::check_same;
use qoft::train::multiple_choice::{Question, evaluate_choices};
use qoft::train::tokenizer::Tokenizer;
use qoft::train::train::{Below, Digest};
use serde_json::json;

use crate::args::{DataArg, EvalArgs};
use crate::print::outln;
use crate::processes::Processes;
use crate::{data, files, progress, stop, vocabulary};

/// The format of questions with several answers.
const MULTIPLE_CHOICE: &str = "multiple-choice";

/// Chooses rows where several files have weights.
const SEED: u64 = 42;

/// Measures the loss of a model on a data file.
pub fn run(args: &EvalArgs, registries: &Registries, processes: &Processes) -> Result<()> {
    let device = files::device(args.model.device.as_deref())?;
    let folder = vocabulary::open(registries, &args.model.model, &args.model.adapter)?;
    let tokenizer = args.reading.tokenizer(files::tokenizer(&folder)?)?;
    let group = processes.group();
    let digest = match group.size() {
        1 => None,
        _ => Some(Digest::of_checkpoint(folder.checkpoint())?),
    };
    let load = || files::adapted_model(registries, folder, &args.model);
    let model = match args.model.load.quantize_cache {
        Some(_) => processes.first_then_others(load)?,
        None => load()?,
    };
    let reading = data::For {
        tokenizer: &tokenizer,
        model: model.config(),
        max_length: args.max_length,
        answer_tokens: AnswerTokens::default(),
        split: Split::Test,
    };
    let sources = DataArg::all(&args.data)?;
    if sources.iter().any(|data| is_of_questions(args, &data.path)) {
        let [DataArg { path, weight: None }] = &sources[..] else {
            bail!(
                "--data: questions with several answers are measured of one file or folder at a time, and \
                 without a weight; given are {}",
                args.data.join(", ")
            );
        };
        ensure!(
            args.reading.columns.is_none(),
            "--columns: questions with several answers are read by the names of their own fields: question, \
             choices and answer"
        );
        ensure!(
            group.size() == 1,
            "{}: questions with several answers are measured by one process",
            path.display()
        );
        return choices(args, path, &model, &tokenizer, &device);
    }
    // The tokens of large data are kept on disk.
    let read = || data::read::<Example>(&sources, &args.reading, reading, SEED);
    let read = processes.first_then_others(read)?;
    let is_weighted = sources.iter().any(|data| data.weight.is_some());
    if args.reading.data_format.is_some()
        || is_weighted
        || sources.iter().any(|data| data.path.is_dir())
    {
        read.tell();
    }
    if let Some(digest) = &digest {
        check_same(group, &subject(args, digest, &read.dataset)?)?;
    }
    let evaluation = files::evaluate_among(group, &model, &read.dataset, args.batch_size, &device)?;
    read.report_losses();
    if args.json {
        outln!(
            "{}",
            json!({
                "loss": evaluation.loss,
                "perplexity": evaluation.perplexity,
                "tokens": evaluation.tokens,
                "metrics": evaluation.metrics,
            })
        );
    } else {
        outln!(
            "loss {:.6}  perplexity {}  tokens {}",
            evaluation.loss,
            progress::perplexity(evaluation.perplexity, 4),
            evaluation.tokens
        );
    }
    Ok(())
}

/// What is measured, which has to be the same for all processes.
fn subject(args: &EvalArgs, model: &Digest, data: &Dataset) -> Result<Vec<(String, String)>> {
    let mut adapters = Vec::new();
    for adapter in &args.model.adapter {
        let below = Below::new(&adapter.folder, adapter.strength)?;
        adapters.push(format!("{below} ({})", below.weights));
    }
    Ok([
        ("the model", model.to_string()),
        ("the list of adapters", adapters.join(" ")),
        ("the data", Digest::of_data(data).to_string()),
        ("--batch-size", args.batch_size.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec())
}

/// Whether the rows of a data file are questions with several answers. What a pipe has is there only once, so that
/// its rows are questions if the options say so.
fn is_of_questions(args: &EvalArgs, path: &Path) -> bool {
    match args.reading.data_format.as_deref() {
        Some(MULTIPLE_CHOICE) => true,
        Some("auto") | None if data::is_lasting(path) => {
            let first = RawRow::read(path, Some(1));
            // What is wrong with a file is said where its rows are read.
            first.is_ok_and(|rows| rows.iter().all(|row| Question::is_one(&row.fields)))
        }
        _ => false,
    }
}

/// Measures how often a model finds the right answer.
fn choices(
    args: &EvalArgs,
    path: &Path,
    model: &CausalLm,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<()> {
    let limit = args.reading.max_samples.map(NonZeroUsize::get);
    let questions = Question::read(path, limit)?;
    let reading = data::For {
        tokenizer,
        model: model.config(),
        max_length: args.max_length,
        answer_tokens: AnswerTokens::default(),
        split: Split::Test,
    };
    let longest = reading.longest()?;
    let bar = progress::bar("evaluating", 0);
    let found = evaluate_choices(
        model,
        tokenizer,
        &questions,
        (args.batch_size, longest),
        device,
        stop::requested(),
        &mut progress::follow(&bar),
    );
    bar.finish_and_clear();
    let found = found?;
    if args.json {
        outln!("{}", serde_json::to_string(&found)?);
        return Ok(());
    }
    outln!(
        "accuracy {:.4} ± {:.4}  normalized {:.4} ± {:.4}  loss {:.6}  questions {}",
        found.accuracy,
        found.accuracy_stderr,
        found.accuracy_norm,
        found.accuracy_norm_stderr,
        found.loss,
        found.questions
    );
    Ok(())
}
