//! Conversations whose messages have `from` and `value`.

use serde_json::{Map, Value, json};

use super::{Row, learned, list_of, variables, wrong_type};
use crate::chat::Message;
use crate::data::error::RowError;
use crate::data::format::CONVERSATIONS;

/// Who says something, by the names that data sets have for them.
const ROLES: [(&str, &[&str]); 4] = [
    ("system", &["system", "developer"]),
    ("user", &["human", "user", "prompter"]),
    (
        "assistant",
        &[
            "gpt",
            "assistant",
            "model",
            "chatgpt",
            "bot",
            "bing",
            "bard",
        ],
    ),
    (
        "tool",
        &[
            "tool",
            "observation",
            "function",
            "function_response",
            "tool_response",
            "ipython",
        ],
    ),
];
/// The name under which a message of the assistant calls a function.
const CALLS: [&str; 3] = ["function_call", "function-call", "tool_call"];

/// A row of `conversations`, with `system` and `tools` if there are any.
pub(super) fn conversation(
    mut fields: Map<String, Value>,
    only_last: bool,
) -> Result<Row, RowError> {
    let names = CONVERSATIONS.into_iter().chain(["messages"]);
    let mut names = names.filter(|name| fields.contains_key(*name));
    let name = names.next().unwrap_or(CONVERSATIONS[0]);
    let list = fields.remove(name).and_then(list_of);
    let list = list.ok_or_else(|| wrong_type(name, EXPECTED))?;
    let mut messages = said(name, list)?;
    let begins_with_system = messages
        .first()
        .is_some_and(|first| first["role"] == "system");
    match fields.remove("system") {
        // That of the conversation is the one.
        Some(Value::String(system)) if !system.is_empty() && !begins_with_system => {
            messages.insert(0, named("system", json!(system), Message::new()));
        }
        Some(Value::String(_)) | None => {}
        Some(_) => return Err(wrong_type("system", "a text")),
    }
    Ok(Row::Messages {
        unlearned: learned::unlearned(&messages, only_last)?,
        messages,
        variables: variables(&mut fields)?,
    })
}

const EXPECTED: &str = "a list of messages, objects with from and value";

/// The messages of a list in the field `name`.
pub(super) fn said(name: &'static str, list: Vec<Value>) -> Result<Vec<Message>, RowError> {
    let said = |(index, value)| match value {
        Value::Object(fields) => message(fields, index + 1)
            .map_err(|error| error.unwrap_or_else(|| wrong_type(name, EXPECTED))),
        _ => Err(wrong_type(name, EXPECTED)),
    };
    list.into_iter().enumerate().map(said).collect()
}

/// One message as templates read it; an error of its own, or none where the fields are other ones.
fn message(mut fields: Message, number: usize) -> Result<Message, Option<RowError>> {
    let take = |fields: &mut Message, names: [&str; 2]| {
        let mut names = names.into_iter();
        names.find_map(|name| fields.shift_remove(name))
    };
    let from = take(&mut fields, ["from", "role"]).ok_or(None)?;
    let value = take(&mut fields, ["value", "content"]);
    let Value::String(from) = from else {
        return Err(None);
    };
    let name = from.trim().to_ascii_lowercase();
    if CALLS.contains(&&*name) {
        let calls = value.as_ref().and_then(calls);
        let calls = calls.ok_or(Some(RowError::FunctionCall { number }))?;
        let mut message = named("assistant", json!(""), fields);
        message.insert("tool_calls".to_owned(), calls.into());
        return Ok(message);
    }
    let role = ROLES.iter().find(|(_, names)| names.contains(&&*name));
    let (role, _) = role.ok_or(Some(RowError::UnknownRole { number, role: from }))?;
    let value = match value {
        Some(value @ (Value::String(_) | Value::Array(_))) => value,
        None | Some(Value::Null) if fields.contains_key("tool_calls") => json!(""),
        _ => return Err(None),
    };
    Ok(named(role, value, fields))
}

/// A message with what else it has.
fn named(role: &str, content: Value, rest: Message) -> Message {
    let mut message = Message::new();
    message.insert("role".to_owned(), json!(role));
    message.insert("content".to_owned(), content);
    message.extend(rest);
    message
}

/// The functions that a text of JSON calls, one or several, as templates read them.
fn calls(value: &Value) -> Option<Vec<Value>> {
    let parsed = match value {
        Value::String(text) => serde_json::from_str(text).ok()?,
        other => other.clone(),
    };
    let list = match parsed {
        Value::Array(list) => list,
        one => vec![one],
    };
    let call = |call: Value| {
        let function = call.get("function").unwrap_or(&call);
        let name = function.get("name")?.as_str()?;
        let arguments = ["arguments", "parameters"];
        let arguments = arguments.iter().find_map(|key| function.get(*key));
        let arguments = arguments.cloned().unwrap_or_else(|| json!({}));
        Some(json!({"type": "function", "function": {"name": name, "arguments": arguments}}))
    };
    list.into_iter().map(call).collect()
}
