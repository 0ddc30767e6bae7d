//! Rows with a prompt and answers of which one is better, or with one that is good or bad.

mod pair;

use serde_json::{Map, Value, json};

use super::{Row, learned, list_of, message, messages, sharegpt, variables, wrong_type};
use crate::chat::{Message, Variables, is_assistant};
use crate::data::error::RowError;
use crate::data::format::{CONVERSATIONS, DataFormat};

/// A prompt with its answers.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) struct Preferred {
    /// Two answers, the better one first, or one.
    pub(in crate::data) answers: Answers,
    /// Whether the only answer is good; nothing where there are two.
    pub(in crate::data) desirable: Option<bool>,
}

/// A prompt and answers to it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) enum Answers {
    /// Of texts.
    Texts {
        prompt: String,
        /// What follows the prompt.
        answers: Vec<String>,
    },
    /// Of messages.
    Messages {
        prompt: Vec<Message>,
        /// What follows the prompt.
        answers: Vec<Vec<Message>>,
        variables: Variables,
    },
}

/// Names of the field that says whether an answer is good.
const LABELS: [&str; 2] = ["label", "kto_tag"];

/// The field by which a row says whether its answer is good.
pub(super) fn judgement(fields: &Map<String, Value>) -> Option<&'static str> {
    let [label, tag] = LABELS;
    let has = |name: &str| fields.contains_key(name);
    // Many data sets have labels of other kinds, and beside texts.
    let is_answered = has("completion") || has("output") || has("messages");
    let is_said = is_answered || CONVERSATIONS.into_iter().any(has);
    match () {
        () if has(tag) => Some(tag),
        () if fields.get(label).is_some_and(Value::is_boolean) && is_said => Some(label),
        () => None,
    }
}

impl Preferred {
    /// Reads a row from its fields: `chosen` and `rejected`, or `label` with an answer.
    pub(in crate::data) fn read(
        mut fields: Map<String, Value>,
        format: DataFormat,
    ) -> Result<Self, RowError> {
        fields.retain(|_, value| !value.is_null());
        if !learned::row_is_learned(&mut fields)? {
            return Err(RowError::UnlearnedPreference);
        }
        split_output(&mut fields);
        let is_pair = fields.contains_key("chosen") && fields.contains_key("rejected");
        match format {
            DataFormat::Auto => {}
            DataFormat::Preference if is_pair => {}
            DataFormat::Judged if !is_pair => {}
            _ => return Err(no_preference(&fields)),
        }
        let answers = match is_pair {
            true => ["chosen", "rejected"],
            false => return judged(fields),
        };
        let answers = answers.map(|name| fields.remove(name).unwrap_or_default());
        Ok(Self {
            answers: pair::answers(fields, answers)?,
            desirable: None,
        })
    }
}

fn no_preference(fields: &Map<String, Value>) -> RowError {
    RowError::NoPreference {
        fields: fields.keys().cloned().collect(),
    }
}

/// An `output` of two texts has the better and the worse one.
fn split_output(fields: &mut Map<String, Value>) {
    let texts = fields.get("output").and_then(Value::as_array);
    if let Some([chosen @ Value::String(_), rejected @ Value::String(_)]) = texts.map(Vec::as_slice)
    {
        let (chosen, rejected) = (chosen.clone(), rejected.clone());
        fields.remove("output");
        fields.insert("chosen".to_owned(), chosen);
        fields.insert("rejected".to_owned(), rejected);
    }
}

/// A row with one answer, and whether it is good.
fn judged(mut fields: Map<String, Value>) -> Result<Preferred, RowError> {
    let label = LABELS.iter().find(|name| fields.contains_key(**name));
    let Some((name, label)) = label.and_then(|name| Some((*name, fields.remove(*name)?))) else {
        return Err(no_preference(&fields));
    };
    let desirable = learned::truth(&label).ok_or_else(|| wrong_type(name, "true or false"))?;
    let has_answer = fields.contains_key("prompt") && fields.contains_key("completion");
    if !has_answer {
        if !has_conversation(&fields) {
            return Err(no_preference(&fields));
        }
        let (mut prompt, variables) =
            conversation(&mut fields)?.ok_or_else(|| no_preference(&fields))?;
        let answer = prompt.pop().filter(is_assistant);
        let answer = answer.ok_or(RowError::NoAnswer)?;
        return Ok(Preferred {
            answers: Answers::Messages {
                prompt,
                answers: vec![vec![answer]],
                variables,
            },
            desirable: Some(desirable),
        });
    }
    let [prompt, completion] =
        ["prompt", "completion"].map(|name| fields.remove(name).unwrap_or_default());
    let answers = match (prompt, completion) {
        (Value::String(prompt), Value::String(completion))
            if !is_list(&prompt) && !is_list(&completion) =>
        {
            Answers::Texts {
                prompt,
                answers: vec![completion],
            }
        }
        (prompt, completion) => {
            let prompt = match prompt {
                Value::String(text) if !is_list(&text) => vec![message("user", &text)],
                prompt => spoken("prompt", prompt)?,
            };
            Answers::Messages {
                prompt,
                answers: vec![answer("completion", completion)?],
                variables: variables(&mut fields)?,
            }
        }
    };
    Ok(Preferred {
        answers,
        desirable: Some(desirable),
    })
}

/// Fields that hold a conversation, or make one.
const SPOKEN: [&str; 4] = ["messages", "conversations", "conversation", "instruction"];

fn has_conversation(fields: &Map<String, Value>) -> bool {
    SPOKEN.iter().any(|name| fields.contains_key(*name))
}

/// The messages of a row that has a conversation, or an instruction, beside its answers, and the variables
/// of the template; nothing if it has neither.
fn conversation(
    fields: &mut Map<String, Value>,
) -> Result<Option<(Vec<Message>, Variables)>, RowError> {
    let has = |name: &str| fields.contains_key(name);
    let is_said = has("messages") || CONVERSATIONS.into_iter().any(has);
    if !is_said && !has("instruction") {
        return Ok(None);
    }
    let mut fields = std::mem::take(fields);
    let has_answer = fields.contains_key("output");
    if !is_said && !has_answer {
        fields.insert("output".to_owned(), json!(""));
    }
    let (row, _) = Row::read(fields, DataFormat::Auto)?;
    match row {
        Row::Messages {
            mut messages,
            variables,
            ..
        } => {
            if !is_said && !has_answer {
                messages.pop();
            }
            Ok(Some((messages, variables)))
        }
        _ => Ok(None),
    }
}

/// The messages of an answer: a text, a message or a list of them.
fn answer(name: &'static str, value: Value) -> Result<Vec<Message>, RowError> {
    match value {
        Value::String(text) if !is_list(&text) => Ok(vec![message("assistant", &text)]),
        message @ Value::Object(_) => spoken(name, Value::Array(vec![message])),
        list => spoken(name, list),
    }
}

/// A list of messages, with `role` and `content` or with `from` and `value`.
fn spoken(name: &'static str, list: Value) -> Result<Vec<Message>, RowError> {
    let list = list_of(list).unwrap_or_default();
    let has_from = list
        .first()
        .is_some_and(|first| first.get("from").is_some());
    let found = match has_from {
        true => sharegpt::said(name, list)?,
        false => messages(name, Value::Array(list))?,
    };
    match found.is_empty() {
        true => Err(wrong_type(name, "a text, a message or a list of messages")),
        false => Ok(found),
    }
}

/// Whether a text is a list of objects, as in cells of tables.
fn is_list(text: &str) -> bool {
    let list: Option<Vec<Value>> = serde_json::from_str(text).ok();
    list.is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_object))
}

/// How many bytes of whole characters both texts begin with.
pub(in crate::data) fn common_start(a: &str, b: &str) -> usize {
    let pairs = a.chars().zip(b.chars());
    let same = pairs.take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(row: Value) -> Result<Preferred, RowError> {
        Preferred::read(row.as_object().unwrap().clone(), DataFormat::Auto)
    }

    fn texts(row: &Preferred) -> (Vec<String>, Vec<Vec<String>>) {
        let Answers::Messages {
            prompt, answers, ..
        } = &row.answers
        else {
            panic!("{row:?}");
        };
        let text = |m: &Message| {
            format!(
                "{}:{}",
                m["role"].as_str().unwrap(),
                m["content"].as_str().unwrap()
            )
        };
        let all = |list: &Vec<Message>| list.iter().map(text).collect::<Vec<_>>();
        (all(prompt), answers.iter().map(all).collect())
    }

    #[test]
    fn pairs_of_all_forms_are_read() {
        let plain = read(json!({"prompt": "Q", "chosen": " a", "rejected": " b"})).unwrap();
        let expected = Answers::Texts {
            prompt: "Q".to_owned(),
            answers: vec![" a".to_owned(), " b".to_owned()],
        };
        assert_eq!(plain.answers, expected);
        let implicit = read(json!({"chosen": "Q a", "rejected": "Q b"})).unwrap();
        assert_eq!(implicit.answers, expected);

        let (user, good, bad) = (
            json!({"role": "user", "content": "Q"}),
            json!({"role": "assistant", "content": "a"}),
            json!({"role": "assistant", "content": "b"}),
        );
        let (human, gpt_good, gpt_bad) = (
            json!({"from": "human", "value": "Q"}),
            json!({"from": "gpt", "value": "a"}),
            json!({"from": "gpt", "value": "b"}),
        );
        let rows = [
            json!({"prompt": [user], "chosen": [good], "rejected": [bad]}),
            json!({"chosen": [user, good], "rejected": [user, bad]}),
            json!({"prompt": "Q", "chosen": [user, good], "rejected": [user, bad]}),
            json!({"prompt": "Q", "chosen": [good], "rejected": [bad]}),
            json!({"prompt": [user], "chosen": "a", "rejected": "b"}),
            json!({"messages": [user], "chosen": good, "rejected": bad}),
            json!({"conversations": [human], "chosen": gpt_good, "rejected": gpt_bad}),
            json!({"instruction": "Q", "input": "", "chosen": "a", "rejected": "b"}),
            json!({"instruction": "Q", "output": ["a", "b"]}),
            json!({"prompt": json!([user]).to_string(), "chosen": json!([good]).to_string(),
                "rejected": json!([bad]).to_string()}),
        ];
        for row in rows {
            let found = read(row.clone()).unwrap_or_else(|e| panic!("{row}: {e}"));
            let expected = (
                vec!["user:Q".to_owned()],
                vec![
                    vec!["assistant:a".to_owned()],
                    vec!["assistant:b".to_owned()],
                ],
            );
            assert_eq!(texts(&found), expected, "{row}");
            assert_eq!(found.desirable, None);
        }
        let system = read(json!({
            "conversations": [human], "system": "S", "chosen": gpt_good, "rejected": gpt_bad,
        }));
        assert_eq!(texts(&system.unwrap()).0, ["system:S", "user:Q"]);
    }

    #[test]
    fn judged_answers_of_all_forms_are_read() {
        let plain = read(json!({"prompt": "Q", "completion": " a", "label": true})).unwrap();
        assert_eq!(plain.desirable, Some(true));
        let expected = Answers::Texts {
            prompt: "Q".to_owned(),
            answers: vec![" a".to_owned()],
        };
        assert_eq!(plain.answers, expected);
        let (user, good) = (
            json!({"role": "user", "content": "Q"}),
            json!({"role": "assistant", "content": "a"}),
        );
        let rows = [
            json!({"prompt": [user], "completion": [good], "label": false}),
            json!({"messages": [user, good], "label": 0}),
            json!({"messages": [user, good], "kto_tag": false}),
            json!({"instruction": "Q", "output": "a", "kto_tag": false}),
            json!({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "a"}],
                "kto_tag": false}),
        ];
        for row in rows {
            let found = read(row.clone()).unwrap();
            let expected = (
                vec!["user:Q".to_owned()],
                vec![vec!["assistant:a".to_owned()]],
            );
            assert_eq!(texts(&found), expected, "{row}");
            assert_eq!(found.desirable, Some(false));
        }
    }

    #[test]
    fn rows_that_prefer_nothing_say_so() {
        for (row, says) in [
            (
                json!({"prompt": "Q", "chosen": "a"}),
                "this one has prompt, chosen",
            ),
            (
                json!({"prompt": "Q", "completion": "a", "label": "x"}),
                "label must be true or false",
            ),
            (
                json!({"chosen": [], "rejected": [], "prompt": []}),
                "chosen must be",
            ),
            (
                json!({"chosen": "a", "rejected": "b", "weight": 0}),
                "weight",
            ),
            (
                json!({"messages": [{"role": "user", "content": "Q"}], "label": true}),
                "last message",
            ),
        ] {
            let error = read(row.clone()).unwrap_err().to_string();
            assert!(error.contains(says), "{row}: {error}");
        }
    }
}
