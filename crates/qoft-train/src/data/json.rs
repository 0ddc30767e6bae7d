//! JSON as Python writes it: `json.dumps` and pandas write `NaN` and `Infinity`, which are no JSON.

use serde_json::{Deserializer, Error, Value};

use super::error::RowError;

/// Reads a value; numbers that JSON does not know count as null.
pub(super) fn parse(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).or_else(|error| match without_words(text) {
        Some(text) => serde_json::from_str(&text).map_err(|_| error),
        None => Err(error),
    })
}

/// Reads values one after another, up to the first error.
pub(super) fn parse_stream(text: &str) -> (Vec<Value>, Option<Error>) {
    let replaced = without_words(text);
    let mut values = Vec::new();
    for value in Deserializer::from_str(replaced.as_deref().unwrap_or(text)).into_iter() {
        match value {
            Ok(value) => values.push(value),
            Err(error) => return (values, Some(error)),
        }
    }
    (values, None)
}

/// What the parser says, without its line number: for a row on a line of its own it is always 1.
pub(super) fn syntax_error(error: &Error) -> RowError {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let hint = if error.is_eof() {
        "; in a .jsonl file each line must hold one whole row"
    } else {
        ""
    };
    RowError::Syntax(format!("{message} (column {}){hint}", error.column()))
}

/// `text` with null in the place of the words for numbers; `None` when there are none outside of
/// strings.
pub(super) fn without_words(text: &str) -> Option<String> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !text.contains("NaN") && !text.contains("Infinity") {
        return None;
    }
    let mut replaced = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut is_changed = false;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let end = string_end(rest);
            replaced.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        match WORDS.iter().find(|word| rest.starts_with(**word)) {
            Some(word) => {
                replaced.push_str("null");
                rest = &rest[word.len()..];
                is_changed = true;
            }
            None => {
                replaced.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    is_changed.then_some(replaced)
}

/// The length of the string at the start of `text`, with its quotes.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_for_numbers_are_null_outside_of_strings() {
        let text = r#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" NaN"}"#;
        let expected = json!({"a": null, "b": [null, null], "c": "NaN \" NaN"});
        assert_eq!(parse(text).unwrap(), expected);
        assert!(parse("{NaN}").is_err());
        assert!(parse(r#"{"a": Nan}"#).is_err());
    }

    #[test]
    fn values_over_several_lines_follow_each_other() {
        let (values, error) = parse_stream("{\n\"a\": 1\n}\n{\"a\":\n NaN}");
        assert_eq!(values, [json!({"a": 1}), json!({"a": null})]);
        assert!(error.is_none());
        let (values, error) = parse_stream("{\"a\": 1}\n{");
        assert_eq!(values.len(), 1);
        assert!(error.is_some());
    }
}
