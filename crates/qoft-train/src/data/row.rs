//! The rows of a data file, before they become tokens.

use serde_json::{Map, Value};

use super::error::RowError;
use crate::chat::{Message, Variables};

/// One row of a data file.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A text to learn whole.
    Text(String),
    /// A text of which only the completion is learned.
    PromptCompletion {
        /// The text before the completion.
        prompt: String,
        /// The text to learn.
        completion: String,
    },
    /// A conversation of which the assistant's turns are learned.
    Messages {
        /// The messages.
        messages: Vec<Message>,
        /// Further variables of the chat template.
        variables: Variables,
    },
    /// A conversation of which all that follows the prompt is learned.
    MessagesCompletion {
        /// The messages before the completion.
        prompt: Vec<Message>,
        /// The messages to learn.
        completion: Vec<Message>,
        /// Further variables of the chat template.
        variables: Variables,
    },
    /// Token ids, used as they are.
    InputIds {
        /// The ids.
        input_ids: Vec<i64>,
        /// The id to predict at each position, or -100; `input_ids` where it is missing.
        labels: Option<Vec<i64>>,
        /// Which positions count (1) and which are padding (0); all count where it is missing.
        attention_mask: Option<Vec<i64>>,
    },
}

impl Row {
    /// Reads a row from JSON.
    ///
    /// The fields of a row are, and the first line that is complete decides:
    ///
    /// - `input_ids` (with `labels` and `attention_mask`, if there are any),
    /// - `messages` (with `tools` and `chat_template_kwargs`, which the chat template gets),
    /// - `prompt` and `completion`, both texts or both lists of messages (these with `tools` and
    ///   `chat_template_kwargs` too),
    /// - `text`.
    ///
    /// Fields beyond these are ignored, and so are fields that are null.
    ///
    /// # Errors
    ///
    /// [`RowError::NotAnObject`], [`RowError::UnknownFields`] and [`RowError::WrongType`].
    pub fn from_json(value: Value) -> Result<Self, RowError> {
        let Value::Object(mut fields) = value else {
            return Err(RowError::NotAnObject);
        };
        fields.retain(|_, value| !value.is_null());
        if let Some(ids) = fields.remove("input_ids") {
            return input_ids(&ids, &fields);
        }
        if let Some(list) = fields.remove("messages") {
            return Ok(Self::Messages {
                messages: messages("messages", list)?,
                variables: variables(&mut fields)?,
            });
        }
        match (
            fields.remove("prompt"),
            fields.remove("completion"),
            fields.remove("text"),
        ) {
            (Some(prompt), Some(completion), _) => completed(prompt, completion, &mut fields),
            (_, _, Some(Value::String(text))) => Ok(Self::Text(text)),
            (_, _, Some(_)) => Err(wrong_type("text", "a text")),
            (prompt, completion, None) => {
                let halves = [("prompt", prompt), ("completion", completion)];
                let halves = halves.into_iter().filter(|(_, value)| value.is_some());
                let names = halves.map(|(name, _)| name.to_owned());
                Err(RowError::UnknownFields {
                    fields: names.chain(fields.keys().cloned()).collect(),
                })
            }
        }
    }
}

fn input_ids(ids: &Value, fields: &Map<String, Value>) -> Result<Row, RowError> {
    let optional = |name| {
        fields
            .get(name)
            .map(|list| integers(name, list))
            .transpose()
    };
    Ok(Row::InputIds {
        input_ids: integers("input_ids", ids)?,
        labels: optional("labels")?,
        attention_mask: optional("attention_mask")?,
    })
}

/// A prompt and its completion, both as texts or both as messages.
fn completed(
    prompt: Value,
    completion: Value,
    fields: &mut Map<String, Value>,
) -> Result<Row, RowError> {
    match (prompt, completion) {
        (Value::String(prompt), Value::String(completion)) => {
            Ok(Row::PromptCompletion { prompt, completion })
        }
        (Value::String(_), _) => Err(wrong_type("completion", "a text, as the prompt is")),
        (prompt, completion) => Ok(Row::MessagesCompletion {
            prompt: messages("prompt", prompt)?,
            completion: messages("completion", completion)?,
            variables: variables(fields)?,
        }),
    }
}

fn messages(field: &'static str, list: Value) -> Result<Vec<Message>, RowError> {
    let expected = "a list of messages, objects with a role";
    let Value::Array(list) = list else {
        return Err(wrong_type(field, expected));
    };
    let message = |value| match value {
        Value::Object(message) if message.get("role").is_some_and(Value::is_string) => Ok(message),
        _ => Err(wrong_type(field, expected)),
    };
    list.into_iter().map(message).collect()
}

/// The variables that a row gives to the chat template.
fn variables(fields: &mut Map<String, Value>) -> Result<Variables, RowError> {
    let mut variables = match fields.remove("chat_template_kwargs") {
        None => Variables::new(),
        Some(Value::Object(variables)) => variables,
        Some(_) => return Err(wrong_type("chat_template_kwargs", "an object")),
    };
    match fields.remove("tools") {
        None => {}
        Some(tools @ Value::Array(_)) => {
            variables.insert("tools".to_owned(), tools);
        }
        Some(_) => return Err(wrong_type("tools", "a list")),
    }
    Ok(variables)
}

fn integers(field: &'static str, list: &Value) -> Result<Vec<i64>, RowError> {
    list.as_array()
        .and_then(|list| list.iter().map(Value::as_i64).collect())
        .ok_or_else(|| wrong_type(field, "a list of integers"))
}

fn wrong_type(field: &'static str, expected: &'static str) -> RowError {
    RowError::WrongType { field, expected }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_complete_set_of_fields_decides_and_others_are_ignored() {
        let message = json!({"role": "user", "content": "x"});
        let row = Row::from_json(json!({
            "id": 7, "text": "t", "prompt": "p", "messages": [message.clone()],
            "tools": [], "chat_template_kwargs": {"a": 1},
        }));
        assert_eq!(
            row.unwrap(),
            Row::Messages {
                messages: vec![message.as_object().unwrap().clone()],
                variables: json!({"a": 1, "tools": []}).as_object().unwrap().clone(),
            }
        );
        let row = Row::from_json(json!({"text": "t", "prompt": "p", "messages": null}));
        assert_eq!(row.unwrap(), Row::Text("t".to_owned()));
    }

    #[test]
    fn broken_rows_say_what_is_wrong() {
        let cases = [
            (json!([1]), "a row must be a JSON object"),
            (json!({}), "this one has no fields"),
            (json!({"prompt": "p", "x": 1}), "this one has prompt, x"),
            (json!({"text": 1}), "text must be a text"),
            (
                json!({"input_ids": [1, 2.5]}),
                "input_ids must be a list of integers",
            ),
            (
                json!({"input_ids": [1], "labels": 3}),
                "labels must be a list of integers",
            ),
            (
                json!({"messages": [{"content": "x"}]}),
                "messages must be a list of messages",
            ),
            (
                json!({"prompt": "p", "completion": []}),
                "completion must be a text",
            ),
            (
                json!({"prompt": [], "completion": "c"}),
                "completion must be a list of messages",
            ),
            (
                json!({"messages": [], "tools": "x"}),
                "tools must be a list",
            ),
        ];
        for (row, expected) in cases {
            let reason = Row::from_json(row.clone()).unwrap_err().to_string();
            assert!(reason.contains(expected), "{row}: {reason}");
        }
    }
}
