//! Calls of functions in conversations.

use serde_json::Value;

use crate::chat::Message;

/// Whether a message calls a function whose name is not in the text that the chat template made of all: the
/// answer is learned without its call.
pub(super) fn are_unwritten(messages: &[Message], text: &str) -> bool {
    let calls = messages
        .iter()
        .filter_map(|message| message.get("tool_calls"));
    let calls = calls.filter_map(Value::as_array).flatten();
    let mut names = calls.filter_map(name);
    names.any(|name| !text.contains(name))
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
    fn calls_that_are_not_written_are_seen() {
        let call = json!({"type": "function", "function": {"name": "weather", "arguments": {}}});
        let messages = [
            json!({"role": "user", "content": "?"}),
            json!({"role": "assistant", "content": "", "tool_calls": [call]}),
        ];
        let messages = messages.map(|message| message.as_object().unwrap().clone());
        assert!(!are_unwritten(&messages, "<call>weather()</call>"));
        assert!(are_unwritten(&messages, "<call></call>"));
        assert!(!are_unwritten(&messages[..1], ""));
    }
}
