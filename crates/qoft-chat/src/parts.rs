//! Contents of several parts.

use serde_json::Value;

/// The text of a content's parts, if they are all texts.
///
/// # Errors
/// The `type` of the first part that is none.
pub fn text_of_parts(parts: &[Value]) -> Result<String, String> {
    let text = |part: &Value| match part.get("text").and_then(Value::as_str) {
        Some(text) if part["type"] == "text" => Ok(text.to_owned()),
        _ => Err(part["type"].to_string()),
    };
    parts.iter().map(text).collect()
}
