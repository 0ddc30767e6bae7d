//! `qoft generate`.

mod prompts;

use anyhow::{Result, ensure};
use qoft::Registries;
use qoft::train::GenerateOptions;
use qoft::train::chat::Message;
use qoft::train::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use crate::args::{GenerateArgs, with_chat_template};
use crate::print::{self, errln, outln};
use crate::{files, vocabulary};

/// Continues a prompt; text appears as it is made.
pub fn run(args: &GenerateArgs, registries: &Registries) -> Result<()> {
    if let Some(template) = &args.chat_template {
        ensure!(
            args.chat || args.prompts.is_some(),
            "--chat-template {template}: it has no effect without --chat, by which the prompt is a user's message"
        );
    }
    let device = files::device(args.model.device.as_deref())?;
    let folder = vocabulary::open(registries, &args.model.model, &args.model.adapter)?;
    let tokenizer = files::tokenizer(&folder)?;
    let tokenizer = with_chat_template(tokenizer, args.chat_template.as_deref())?;
    let mut options = args.choice.options(folder.checkpoint().dir())?;
    options.seed = args.seed;
    if let Some(file) = &args.prompts {
        let prompts = prompts::read(file, args.chat, &tokenizer)?;
        let model = files::adapted_model(registries, folder, &args.model)?;
        return prompts::run(
            &model,
            &tokenizer,
            prompts,
            &options,
            args.batch_size,
            &device,
        );
    }
    let text = args.prompt.as_deref().unwrap_or_default();
    let prompt = match args.chat {
        true => chat_ids(&tokenizer, &[of_user(text)])?,
        false => tokenizer.encode(text, true)?,
    };
    let model = files::adapted_model(registries, folder, &args.model)?;
    let ends = options.eos_token_id.clone();
    let ends = ends.unwrap_or_else(|| tokenizer.stop_ids());
    let mut show = |text: &str| {
        if !args.json {
            print::text(text);
        }
    };
    if !args.json {
        errln!("{}", in_words(&options, &ends));
    }
    if !args.chat {
        show(text);
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
                "options": in_json(&options, &ends),
            })
        );
    }
    Ok(())
}

/// How tokens are chosen, and when the text ends.
fn in_words(options: &GenerateOptions, ends: &[u32]) -> String {
    let mut words = match options.do_sample {
        false => "the likeliest token each time".to_owned(),
        true => {
            let mut words = format!("draws with temperature {}", options.temperature);
            if options.top_k > 0 {
                words += &format!(", top-k {}", options.top_k);
            }
            if options.top_p < 1.0 {
                words += &format!(", top-p {}", options.top_p);
            }
            if options.min_p > 0.0 {
                words += &format!(", min-p {}", options.min_p);
            }
            words
        }
    };
    if options.repetition_penalty != 1.0 {
        words += &format!(", repetition penalty {}", options.repetition_penalty);
    }
    for (name, penalty) in [
        ("presence", options.presence_penalty),
        ("frequency", options.frequency_penalty),
    ] {
        if penalty != 0.0 {
            words += &format!(", {name} penalty {penalty}");
        }
    }
    if !options.logit_bias.is_empty() {
        words += &format!(", logit biases {:?}", options.logit_bias);
    }
    match options.max_length {
        Some(length) => words += &format!("; at most {length} tokens with the prompt"),
        None => words += &format!("; at most {} new tokens", options.max_new_tokens),
    }
    if !ends.is_empty() {
        let ends: Vec<String> = ends.iter().map(u32::to_string).collect();
        words += &format!("; ends with token {}", ends.join(" or "));
    }
    if !options.stop_strings.is_empty() {
        words += &format!("; ends with {:?}", options.stop_strings);
    }
    words
}

/// The same under transformers' names.
fn in_json(options: &GenerateOptions, ends: &[u32]) -> Value {
    let max_new_tokens = Some(options.max_new_tokens).filter(|_| options.max_length.is_none());
    json!({
        "do_sample": options.do_sample,
        "max_new_tokens": max_new_tokens,
        "max_length": options.max_length,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "repetition_penalty": options.repetition_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "logit_bias": options.logit_bias,
        "eos_token_id": ends,
        "stop_strings": options.stop_strings,
        "seed": options.seed,
    })
}

/// A message of the user.
pub fn of_user(text: &str) -> Message {
    message("user", text)
}

/// A message of somebody.
pub fn message(role: &str, text: &str) -> Message {
    let mut message = Map::new();
    message.insert("role".into(), Value::from(role));
    message.insert("content".into(), Value::from(text));
    message
}

/// The tokens of a conversation, with the opening of the answer.
pub fn chat_ids(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
    let template = tokenizer.chat_template()?;
    let text = template.render(messages, &Map::new(), true)?;
    // The template writes the special tokens itself.
    Ok(tokenizer.encode(&text, false)?)
}
