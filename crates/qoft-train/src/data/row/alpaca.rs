//! Rows with an instruction and its output.

use serde_json::{Map, Value};

use super::{Row, learned, message, variables, wrong_type};
use crate::data::error::RowError;

/// A row of `instruction`, `input`, `output`, `system` and `history` as a conversation. An input
/// stands on the line below its instruction.
pub(super) fn conversation(
    mut fields: Map<String, Value>,
    only_last: bool,
) -> Result<Row, RowError> {
    let mut messages = Vec::new();
    let system = text(&mut fields, "system")?.unwrap_or_default();
    if !system.is_empty() {
        messages.push(message("system", &system));
    }
    for (question, answer) in history(fields.remove("history"))? {
        messages.push(message("user", &question));
        messages.push(message("assistant", &answer));
    }
    let missing = |field| wrong_type(field, "there, as a text");
    let instruction = text(&mut fields, "instruction")?.ok_or_else(|| missing("instruction"))?;
    let input = text(&mut fields, "input")?.unwrap_or_default();
    let output = text(&mut fields, "output")?.ok_or_else(|| missing("output"))?;
    let parts = [instruction, input];
    let parts: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    messages.push(message("user", &parts.join("\n")));
    messages.push(message("assistant", &output));
    Ok(Row::Messages {
        unlearned: learned::unlearned(&messages, only_last)?,
        messages,
        variables: variables(&mut fields)?,
    })
}

/// Earlier questions with their answers.
fn history(value: Option<Value>) -> Result<Vec<(String, String)>, RowError> {
    let wrong = || wrong_type("history", "a list of pairs of a question and its answer");
    let pairs = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(pairs)) => pairs,
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
        // As in cells of tables.
        Some(Value::String(text)) => serde_json::from_str(&text).map_err(|_| wrong())?,
        Some(_) => return Err(wrong()),
    };
    let pair = |pair: Value| match pair.as_array().map(Vec::as_slice) {
        Some([Value::String(question), Value::String(answer)]) => {
            Ok((question.clone(), answer.clone()))
        }
        _ => Err(wrong()),
    };
    pairs.into_iter().map(pair).collect()
}

fn text(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, RowError> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Array(_)) if name == "output" => Err(wrong_type(
            "output",
            "a text; a list of a better and a worse one is data about preferences: --stage dpo",
        )),
        Some(_) => Err(wrong_type(name, "a text")),
    }
}
