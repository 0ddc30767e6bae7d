//! `qoft eval`.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use qoft::Registries;
use qoft::models::CausalLm;
use qoft::train::data::{AnswerTokens, Example, RawRow};
use qoft::train::multiple_choice::{Question, evaluate_choices};
use qoft::train::tokenizer::Tokenizer;
use serde_json::json;

use crate::args::{DataArg, EvalArgs};
use crate::print::outln;
use crate::{data, files, progress, stop, vocabulary};

/// The format of questions with several answers.
const MULTIPLE_CHOICE: &str = "multiple-choice";

/// Chooses rows where several files have weights.
const SEED: u64 = 42;

/// Measures the loss of a model on a data file.
pub fn run(args: &EvalArgs, registries: &Registries) -> Result<()> {
    let device = files::device(args.model.device.as_deref())?;
    let folder = vocabulary::open(registries, &args.model.model, &args.model.adapter)?;
    let tokenizer = args.reading.tokenizer(files::tokenizer(&folder)?)?;
    let model = files::adapted_model(registries, folder, &args.model)?;
    let reading = data::For {
        tokenizer: &tokenizer,
        model: model.config(),
        max_length: args.max_length,
        answer_tokens: AnswerTokens::default(),
    };
    let sources = DataArg::all(&args.data)?;
    if let [DataArg { path, weight: None }] = &sources[..]
        && is_of_questions(args, path)?
    {
        return choices(args, path, &model, &tokenizer, &device);
    }
    let read = data::read::<Example>(&sources, &args.reading, reading, SEED)?;
    if args.reading.data_format.is_some() {
        read.tell();
    }
    let evaluation = files::evaluate(&model, &read.dataset, args.batch_size, &device)?;
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

/// Whether the rows of a data file are questions with several answers.
fn is_of_questions(args: &EvalArgs, path: &Path) -> Result<bool> {
    match args.reading.data_format.as_deref() {
        Some(MULTIPLE_CHOICE) => Ok(true),
        Some("auto") | None => {
            let first = RawRow::read(path, Some(1));
            // What is wrong with a file is said where its rows are read.
            Ok(first.is_ok_and(|rows| rows.iter().all(|row| Question::is_one(&row.fields))))
        }
        Some(_) => Ok(false),
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
    };
    let bar = progress::bar("evaluating", 0);
    let found = evaluate_choices(
        model,
        tokenizer,
        &questions,
        (args.batch_size, reading.longest()),
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
