//! `qoft eval`.

use anyhow::Result;
use qoft::train::data::{AnswerTokens, Example};
use serde_json::json;

use crate::args::{DataArg, EvalArgs};
use crate::print::outln;
use crate::{data, files, progress};
use qoft::Registries;

/// Chooses rows where several files have weights.
const SEED: u64 = 42;

/// Measures the loss of a model on a data file.
pub fn run(args: &EvalArgs, registries: &Registries) -> Result<()> {
    let device = files::device(args.model.device.as_deref())?;
    let folder = files::open(registries, &args.model.model)?;
    let tokenizer = args.reading.tokenizer(files::tokenizer(&folder)?)?;
    let model = files::adapted_model(registries, folder, &args.model)?;
    let reading = data::For {
        tokenizer: &tokenizer,
        model: model.config(),
        max_length: args.max_length,
        answer_tokens: AnswerTokens::default(),
    };
    let sources = DataArg::all(&args.data)?;
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
