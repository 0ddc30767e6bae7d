//! The rows of a data file, before they become tokens.

mod alpaca;
mod learned;
mod message;
mod preferred;
mod sharegpt;

use serde_json::{Map, Value};

use super::error::RowError;
use super::format::DataFormat;
use crate::chat::{Message, Variables};

use message::{list_of, message, messages};

pub(super) use learned::asked_of_others;
pub(super) use preferred::{Answers, Preferred, common_start};

/// One row of a data file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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
        /// The indices of assistant's messages that are not learned.
        unlearned: Vec<usize>,
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
        /// Masks by the names of their fields: what is 0 in one of them is not learned.
        learned_masks: Vec<(&'static str, Vec<i64>)>,
    },
    /// A row that is read but not learned, since its weight is 0.
    Unlearned(Box<Row>),
}

impl Row {
    /// Reads a row from JSON.
    ///
    /// The fields of a row are, and the first line that is complete decides:
    ///
    /// - `input_ids` (with `labels`, `attention_mask`, `completion_mask` and `assistant_masks`, if
    ///   there are any),
    /// - `messages` (with `tools` and `chat_template_kwargs`, which the chat template gets),
    /// - `conversations`, messages with `from` and `value` (with `system` and `tools`),
    /// - `prompt` and `completion`, both texts or both lists of messages (these with `tools` and
    ///   `chat_template_kwargs` too),
    /// - `instruction` and `output` (with `input`, `system` and `history`),
    /// - `text`.
    ///
    /// `weight` (0 or 1) or `train` (a bool) of a row tells whether it is learned; so they do in a
    /// message of the assistant, which may have ms-swift's `loss` (a bool) too. With `mask_history` only the last message of the assistant is
    /// learned. Fields beyond these are ignored, and so are fields that are null. A field whose
    /// name says that it masks or weighs what is learned, but that is not understood, is an error.
    ///
    /// # Errors
    ///
    /// [`RowError::NotAnObject`], [`RowError::UnknownFields`], [`RowError::WrongType`],
    /// [`RowError::UnknownRole`], [`RowError::FunctionCall`], [`RowError::UnknownMask`] and
    /// [`RowError::MaskWithoutIds`].
    pub fn from_json(value: Value) -> Result<Self, RowError> {
        let Value::Object(fields) = value else {
            return Err(RowError::NotAnObject);
        };
        Ok(Self::read(fields, DataFormat::Auto)?.0)
    }

    /// Reads a row of a format, and tells which one it is.
    pub(super) fn read(
        mut fields: Map<String, Value>,
        format: DataFormat,
    ) -> Result<(Self, DataFormat), RowError> {
        let nulls = fields.iter().filter(|(_, value)| value.is_null());
        let nulls: Vec<String> = nulls.map(|(name, _)| name.clone()).collect();
        fields.retain(|_, value| !value.is_null());
        let is_learned = learned::row_is_learned(&mut fields)?;
        refuse_others(&fields)?;
        let format = match format {
            DataFormat::Auto => DataFormat::of(&fields).ok_or_else(|| match () {
                () if fields.contains_key("chosen") => RowError::OfPreferences,
                () => RowError::UnknownFields {
                    fields: fields.keys().cloned().collect(),
                    nulls,
                },
            })?,
            format => format,
        };
        let row = Self::from_fields(fields, format)?;
        let row = if is_learned {
            row
        } else {
            Self::Unlearned(Box::new(row))
        };
        Ok((row, format))
    }

    fn from_fields(mut fields: Map<String, Value>, format: DataFormat) -> Result<Self, RowError> {
        if format == DataFormat::TokenIds {
            let ids = fields.remove("input_ids").unwrap_or_default();
            return input_ids(&ids, &fields);
        }
        learned::refuse_masks_of_ids(&fields)?;
        let only_last = learned::only_last(&mut fields)?;
        match format {
            DataFormat::Alpaca => alpaca::conversation(fields, only_last),
            DataFormat::ShareGpt => sharegpt::conversation(fields, only_last),
            DataFormat::PromptCompletion => {
                let prompt = fields.remove("prompt").unwrap_or_default();
                let completion = fields.remove("completion").unwrap_or_default();
                completed(prompt, completion, &mut fields)
            }
            DataFormat::Text => match fields.remove("text") {
                Some(Value::String(text)) => Ok(Self::Text(text)),
                _ => Err(wrong_type("text", "a text")),
            },
            DataFormat::Preference | DataFormat::Judged => Err(RowError::OfPreferences),
            DataFormat::Messages | DataFormat::TokenIds | DataFormat::Auto => {
                let list = fields.remove("messages").unwrap_or_default();
                let messages = messages("messages", list)?;
                Ok(Self::Messages {
                    unlearned: learned::unlearned(&messages, only_last)?,
                    messages,
                    variables: variables(&mut fields)?,
                })
            }
        }
    }
}

/// Fields with what is no text.
const MEDIA: [&str; 6] = ["images", "image", "videos", "video", "audios", "audio"];

/// Refuses what would be learned as something else than it is.
fn refuse_others(fields: &Map<String, Value>) -> Result<(), RowError> {
    if let Some(field) = preferred::judgement(fields) {
        return Err(RowError::OfJudgements { field });
    }
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let has = |name: &&&str| fields.get(**name).is_some_and(|value| !is_empty(value));
    match MEDIA.iter().find(has) {
        Some(field) => Err(RowError::Media { field }),
        None => Ok(()),
    }
}

fn input_ids(ids: &Value, fields: &Map<String, Value>) -> Result<Row, RowError> {
    let optional = |name, read: fn(&'static str, &Value) -> _| {
        let list = fields.get(name);
        list.map(|list| read(name, list)).transpose()
    };
    let mut learned_masks = Vec::new();
    for name in learned::MASKS_OF_IDS {
        learned_masks.extend(optional(name, mask)?.map(|mask| (name, mask)));
    }
    Ok(Row::InputIds {
        input_ids: integers("input_ids", ids)?,
        labels: optional("labels", integers)?,
        attention_mask: optional("attention_mask", mask)?,
        learned_masks,
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
        (prompt, completion) => {
            let completion = messages("completion", completion)?;
            if !learned::unlearned(&completion, false)?.is_empty() {
                return Err(RowError::UnlearnedCompletion);
            }
            Ok(Row::MessagesCompletion {
                prompt: messages("prompt", prompt)?,
                completion,
                variables: variables(fields)?,
            })
        }
    }
}

/// The variables that a row gives to the chat template.
fn variables(fields: &mut Map<String, Value>) -> Result<Variables, RowError> {
    let mut variables = match fields.remove("chat_template_kwargs") {
        None => Variables::new(),
        Some(Value::Object(variables)) => variables,
        Some(_) => return Err(wrong_type("chat_template_kwargs", "an object")),
    };
    let tools = match fields.remove("tools") {
        // Tables cannot hold lists of differing objects, so some data sets have them as text.
        Some(Value::String(text)) => serde_json::from_str(&text).ok().or(Some(Value::Null)),
        tools => tools,
    };
    match tools {
        None => {}
        Some(tools @ Value::Array(_)) => {
            variables.insert("tools".to_owned(), tools);
        }
        Some(_) => return Err(wrong_type("tools", "a list")),
    }
    Ok(variables)
}

fn integers(field: &'static str, list: &Value) -> Result<Vec<i64>, RowError> {
    list_of_integers(field, list, Value::as_i64)
}

/// A list of 0 and 1, which may be bools.
fn mask(field: &'static str, list: &Value) -> Result<Vec<i64>, RowError> {
    list_of_integers(field, list, |value| {
        value.as_i64().or_else(|| value.as_bool().map(i64::from))
    })
}

fn list_of_integers(
    field: &'static str,
    list: &Value,
    integer: fn(&Value) -> Option<i64>,
) -> Result<Vec<i64>, RowError> {
    let list = match list {
        Value::String(_) => list_of(list.clone()).map(Value::Array),
        list => Some(list.clone()),
    };
    list.as_ref()
        .and_then(Value::as_array)
        .and_then(|list| list.iter().map(integer).collect())
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
                unlearned: Vec::new(),
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
                json!({"input_ids": [1, true]}),
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
