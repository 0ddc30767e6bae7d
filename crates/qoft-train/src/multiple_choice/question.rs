//! A question with several answers, as files have it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::data::{DataError, RawRow, RowError};

/// A question with several answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Question {
    /// What stands before each answer.
    pub text: String,
    /// The answers.
    pub choices: Vec<String>,
    /// The right one.
    pub answer: usize,
}

impl Question {
    /// The questions of a data file.
    ///
    /// A row has a `question` (or `query`, `context`, `ctx` or `prompt`), its `choices` (or `options`, `endings`), and the
    /// `answer` (or `answerKey`, `label`, `gold`): the number of one, from 0 on, its letter, or its text. `choices`
    /// may be an object of `text` and `label`, as ARC has it.
    ///
    /// # Errors
    /// [`DataError`], for the first row that is no question.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Vec<Self>, DataError> {
        let rows = RawRow::read(path, limit)?;
        rows.iter()
            .map(|row| Self::from_fields(&row.fields).map_err(|reason| row.error(reason)))
            .collect()
    }

    /// Whether these fields are those of a question.
    #[must_use]
    pub fn is_one(fields: &Map<String, Value>) -> bool {
        first(fields, &CHOICES).is_some()
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`RowError::WrongType`], for a field that is missing or means nothing.
    pub fn from_fields(fields: &Map<String, Value>) -> Result<Self, RowError> {
        let wrong = |field, expected| RowError::WrongType { field, expected };
        let text = first(fields, &TEXTS).and_then(Value::as_str);
        let text = text.ok_or(wrong("question", "a text"))?.to_owned();
        let choices = first(fields, &CHOICES).ok_or(wrong("choices", LIST))?;
        let list = choices.get("text").unwrap_or(choices);
        let list = texts(list).filter(|list| list.len() > 1);
        let list = list.ok_or(wrong("choices", LIST))?;
        let labels = choices.get("label").and_then(texts);
        let answer = first(fields, &ANSWERS).ok_or(wrong("answer", ANSWER))?;
        let answer = place(answer, &list, labels.as_deref());
        let answer = answer.filter(|answer| *answer < list.len());
        Ok(Self {
            text,
            answer: answer.ok_or(wrong("answer", ANSWER))?,
            choices: list,
        })
    }
}

const TEXTS: [&str; 5] = ["question", "query", "context", "ctx", "prompt"];
const CHOICES: [&str; 3] = ["choices", "options", "endings"];
const ANSWERS: [&str; 4] = ["answer", "answerKey", "label", "gold"];
const LIST: &str = "a list of two texts or more";
const ANSWER: &str = "the number of a choice, from 0 on, its letter, or its text";

fn first<'a>(fields: &'a Map<String, Value>, names: &[&str]) -> Option<&'a Value> {
    names.iter().find_map(|name| fields.get(*name))
}

/// A list of texts; one in a table is written as JSON.
fn texts(list: &Value) -> Option<Vec<String>> {
    let parsed;
    let list = match list {
        Value::String(text) => {
            parsed = serde_json::from_str::<Value>(text).ok()?;
            &parsed
        }
        list => list,
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    list.as_array()?.iter().map(text).collect()
}

/// Which choice an answer means.
fn place(answer: &Value, choices: &[String], labels: Option<&[String]>) -> Option<usize> {
    if let Some(number) = answer.as_u64() {
        return usize::try_from(number).ok();
    }
    let answer = answer.as_str()?;
    let same = |texts: &[String]| texts.iter().position(|text| text == answer);
    let letter = || match answer.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => {
            Some(usize::from(letter.to_ascii_uppercase() - b'A'))
        }
        _ => None,
    };
    labels
        .and_then(same)
        .or_else(|| same(choices))
        .or_else(letter)
        .or_else(|| answer.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn question(fields: Value) -> Result<Question, RowError> {
        Question::from_fields(fields.as_object().unwrap())
    }

    #[test]
    fn answers_are_numbers_letters_texts_or_labels() {
        for (answer, place) in [
            (json!(1), 1),
            (json!("B"), 1),
            (json!("c"), 2),
            (json!("yes"), 0),
            (json!("2"), 2),
        ] {
            let fields =
                json!({"question": "?", "choices": ["yes", "no", "perhaps"], "answer": answer});
            assert_eq!(question(fields).unwrap().answer, place, "{answer}");
        }
        let arc = json!({"question": "?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"});
        assert_eq!(question(arc).unwrap().answer, 1);
        let continued = json!({"ind": 24, "ctx_a": "He", "ctx_b": "", "ctx": "He", "activity_label": "Roof",
            "endings": ["sat", "ran"], "label": "1"});
        assert_eq!(question(continued).unwrap().answer, 1);
        let cells = json!({"query": "?", "options": "[\"a b\", \"c\"]", "label": "1"});
        assert_eq!(question(cells).unwrap().answer, 1);
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for (fields, field) in [
            (json!({"choices": ["a", "b"], "answer": 0}), "question"),
            (
                json!({"question": "?", "choices": ["a"], "answer": 0}),
                "choices",
            ),
            (
                json!({"question": "?", "choices": ["a", "b"], "answer": 2}),
                "answer",
            ),
            (json!({"question": "?", "choices": ["a", "b"]}), "answer"),
        ] {
            let error = question(fields).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
