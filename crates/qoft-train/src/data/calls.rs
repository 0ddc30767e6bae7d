//! Calls of functions in conversations.

use serde_json::Value;

use super::error::RowError;
use crate::chat::Message;

/// Fails if a message calls a function whose name is not in the text that the chat template made of all: the
/// answer would be learned without its call.
pub(super) fn check(messages: &[Message], text: &str) -> Result<(), RowError> {
    for (index, message) in messages.iter().enumerate() {
        let calls = message.get("tool_calls").and_then(Value::as_array);
        let names = calls.into_iter().flatten().filter_map(name);
        if let Some(function) = { names }.find(|name| !text.contains(name)) {
            return Err(RowError::UnwrittenCall {
                number: index + 1,
                function: function.to_owned(),
            });
        }
    }
    Ok(())
}

/// The name of the function that is called.
fn name(call: &Value) -> Option<&str> {
    call.get("function").unwrap_or(call).get("name")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_that_are_not_written_are_told() {
        let call = json!({"type": "function", "function": {"name": "weather", "arguments": {}}});
        let messages = [
            json!({"role": "user", "content": "?"}),
            json!({"role": "assistant", "content": "", "tool_calls": [call]}),
        ];
        let messages = messages.map(|message| message.as_object().unwrap().clone());
        assert!(check(&messages, "<call>weather()</call>").is_ok());
        let error = check(&messages, "<call></call>").unwrap_err().to_string();
        assert!(error.contains("message 2 calls weather"), "{error}");
        assert!(check(&messages[..1], "").is_ok());
    }
}
