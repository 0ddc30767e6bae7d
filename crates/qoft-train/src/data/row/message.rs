//! Messages of conversations.

use serde_json::{Value, json};

use super::wrong_type;
use crate::chat::{Message, text_of_parts};
use crate::data::error::RowError;

/// A message of a text.
pub(super) fn message(role: &str, content: &str) -> Message {
    let mut message = Message::new();
    message.insert("role".to_owned(), json!(role));
    message.insert("content".to_owned(), json!(content));
    message
}

/// The messages of a field: a list of objects with a role, or in cells of tables the text of one.
pub(super) fn messages(field: &'static str, list: Value) -> Result<Vec<Message>, RowError> {
    let expected = "a list of messages, objects with a role";
    let list = list_of(list).ok_or_else(|| wrong_type(field, expected))?;
    let message = |(index, value)| match value {
        Value::Object(message) if message.get("role").is_some_and(Value::is_string) => {
            of_text(message, index + 1)
        }
        _ => Err(wrong_type(field, expected)),
    };
    list.into_iter().enumerate().map(message).collect()
}

/// The message with its text in one piece. Templates of models that read nothing but text take parts for
/// something else.
fn of_text(mut message: Message, number: usize) -> Result<Message, RowError> {
    let Some(Value::Array(parts)) = message.get("content") else {
        return Ok(message);
    };
    let content = text_of_parts(parts).map_err(|kind| RowError::Part { number, kind })?;
    message.insert("content".to_owned(), content.into());
    Ok(message)
}

/// A list; in cells of tables it is the text of one.
pub(super) fn list_of(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        Value::String(text) => serde_json::from_str(&text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_text_are_one_text() {
        let read = |content: Value| {
            let list = json!([{"role": "user", "content": content}]);
            messages("messages", list).map(|mut list| list.remove(0)["content"].take())
        };
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]);
        assert_eq!(read(parts).unwrap(), "a b");
        assert_eq!(read(json!("a")).unwrap(), "a");
        assert!(read(json!(null)).unwrap().is_null());
        let error = read(json!([{"type": "image_url", "image_url": {}}])).unwrap_err();
        assert!(error.to_string().contains("message 1"), "{error}");
        assert!(error.to_string().contains("image_url"), "{error}");
    }
}
