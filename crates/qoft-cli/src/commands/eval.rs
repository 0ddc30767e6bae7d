//! `qoft eval`.

use anyhow::Result;
use serde_json::json;

use crate::args::EvalArgs;
use crate::print::outln;
use crate::{files, progress};
use qoft::Registries;

/// Measures the loss of a model on a data file.
pub fn run(args: &EvalArgs, registries: &Registries) -> Result<()> {
    let device = files::device(args.model.device.as_deref())?;
    let folder = files::open(registries, &args.model.model)?;
    let tokenizer = files::tokenizer(&folder)?;
    let model = files::adapted_model(registries, folder, &args.model)?;
    let dataset = files::dataset(&args.data, &tokenizer, model.config(), args.max_length)?;
    let evaluation = files::evaluate(&model, &dataset, args.batch_size, &device)?;
    files::report_losses(&args.data, &dataset);
    if args.json {
        outln!(
            "{}",
            json!({
                "loss": evaluation.loss,
                "perplexity": evaluation.perplexity,
                "tokens": evaluation.tokens,
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
