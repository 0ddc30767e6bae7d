//! `qoft generate`.

use anyhow::Result;
use qoft::Registries;
use qoft::train::GenerateOptions;
use qoft::train::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use crate::args::GenerateArgs;
use crate::files;
use crate::print::{self, outln};

/// Continues a prompt; text appears as it is made.
pub fn run(args: &GenerateArgs, registries: &Registries) -> Result<()> {
    let device = files::device(args.model.device.as_deref())?;
    let folder = files::open(registries, &args.model.model)?;
    let tokenizer = files::tokenizer(&folder)?;
    let prompt = prompt(args, &tokenizer)?;
    let model = files::adapted_model(registries, folder, &args.model)?;
    let mut options = GenerateOptions::default();
    options.max_new_tokens = args.max_new_tokens;
    options.temperature = args.temperature;
    options.top_p = args.top_p;
    options.seed = args.seed;
    let mut show = |text: &str| {
        if !args.json {
            print::text(text);
        }
    };
    if !args.chat {
        show(&args.prompt);
    }
    let generated =
        qoft::train::generate(&model, &tokenizer, &prompt, &options, &device, &mut show)?;
    show("\n");
    if args.json {
        outln!(
            "{}",
            json!({
                "text": generated.text,
                "prompt_tokens": prompt.len(),
                "new_tokens": generated.ids.len(),
                "prompt_seconds": generated.prompt_seconds,
                "seconds": generated.seconds,
                "tokens_per_second": generated.tokens_per_second(),
            })
        );
    }
    Ok(())
}

fn prompt(args: &GenerateArgs, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    if !args.chat {
        return Ok(tokenizer.encode(&args.prompt, true)?);
    }
    let mut message = Map::new();
    message.insert("role".into(), Value::from("user"));
    message.insert("content".into(), Value::from(args.prompt.clone()));
    let text = tokenizer
        .chat_template()?
        .render(&[message], &Map::new(), true)?;
    // The template writes the special tokens itself.
    Ok(tokenizer.encode(&text, false)?)
}
