//! Prompts of a file, which are continued together.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::Device;
use qoft::models::CausalLm;
use qoft::train::chat::Message;
use qoft::train::data::{RawRow, RowError};
use qoft::train::tokenizer::Tokenizer;
use qoft::train::{End, GenerateOptions, WriteRequest, WrittenText, generate_each};
use serde_json::{Value, json};

use super::{chat_ids, of_user};
use crate::print::{errln, outln};

/// A prompt, and its row as it is repeated beside the text.
pub struct Prompt {
    ids: Vec<u32>,
    /// `messages` or `prompt`.
    field: &'static str,
    value: Value,
}

/// The prompts of a file: rows with `prompt` or `text`, which with `chat` are what a user says, or with
/// `messages`.
pub fn read(path: &Path, chat: bool, tokenizer: &Tokenizer) -> Result<Vec<Prompt>> {
    let rows = RawRow::read(path, None)?;
    let prompts = rows.into_iter().map(|mut row| {
        let field = ["messages", "prompt", "text"];
        let field = field
            .into_iter()
            .find(|name| row.fields.contains_key(*name));
        let value = field.and_then(|field| row.fields.remove(field));
        let (Some(field), Some(value)) = (field, value) else {
            let expected = "there, a text, or `messages`, a list";
            let reason = RowError::WrongType {
                field: "prompt",
                expected,
            };
            return Err(row.error(reason).into());
        };
        let ids = ids(&value, chat, tokenizer);
        let ids = ids.with_context(|| format!("{}, {}", row.path.display(), row.place))?;
        let field = if field == "text" { "prompt" } else { field };
        Ok(Prompt { ids, field, value })
    });
    prompts.collect()
}

fn ids(value: &Value, chat: bool, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    match value {
        Value::String(text) if chat => chat_ids(tokenizer, &[of_user(text)]),
        Value::String(text) => Ok(tokenizer.encode(text, true)?),
        list => {
            let messages: Vec<Message> = serde_json::from_value(list.clone())
                .context("a prompt is a text, or a list of messages")?;
            chat_ids(tokenizer, &messages)
        }
    }
}

/// Continues all of them, and prints a line of JSON for each, in their order.
pub fn run(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: Vec<Prompt>,
    options: &GenerateOptions,
    batch_size: NonZeroUsize,
    device: &Device,
) -> Result<()> {
    let began = Instant::now();
    let requests = prompts
        .iter()
        .map(|prompt| WriteRequest::new(prompt.ids.clone(), options.clone()));
    let (mut waiting, mut next, mut tokens) = (BTreeMap::new(), 0, 0);
    let requests: Vec<WriteRequest> = requests.collect();
    generate_each::<anyhow::Error>(
        model,
        tokenizer,
        requests,
        batch_size,
        device,
        &mut |index, text| {
            tokens += text.ids.len();
            waiting.insert(index, text);
            while let Some(text) = waiting.remove(&next) {
                outln!("{}", line(&prompts[next], &text));
                next += 1;
            }
            Ok(())
        },
    )?;
    let seconds = began.elapsed().as_secs_f64();
    errln!(
        "{} prompts, {tokens} tokens in {seconds:.1} s ({:.1} tokens/s)",
        prompts.len(),
        tokens as f64 / seconds.max(1e-9)
    );
    Ok(())
}

fn line(prompt: &Prompt, written: &WrittenText) -> Value {
    let reason = match written.end {
        Some(End::Token | End::String) => "stop",
        _ => "length",
    };
    json!({
        prompt.field: prompt.value,
        "text": written.text,
        "prompt_tokens": prompt.ids.len(),
        "new_tokens": written.ids.len(),
        "finish_reason": reason,
    })
}
