//! Rows with a better answer and a worse one.

use serde_json::{Map, Value};

use super::{
    Answers, answer, common_start, conversation, has_conversation, is_list, message, spoken,
};
use crate::chat::{Message, Variables, is_assistant};
use crate::data::error::RowError;
use crate::data::guess::asked;
use crate::data::row::variables;

/// The prompt of a row and its answers, the better one first. Answers that are whole conversations begin with
/// the prompt. Else it is the field `prompt`, or the conversation or the instruction beside them.
pub(super) fn answers(
    mut fields: Map<String, Value>,
    [chosen, rejected]: [Value; 2],
) -> Result<Answers, RowError> {
    let prompt = fields.remove("prompt");
    if let (Some(chosen), Some(rejected)) = (plain(&chosen), plain(&rejected)) {
        let texts = match prompt.as_ref().map(plain) {
            Some(Some(prompt)) => Some((prompt, [chosen, rejected])),
            None if !has_conversation(&fields) => Some(implied(&fields, [chosen, rejected])?),
            _ => None,
        };
        if let Some((prompt, answers)) = texts {
            return Ok(Answers::Texts {
                prompt: prompt.to_owned(),
                answers: answers.map(str::to_owned).to_vec(),
            });
        }
    }
    let answers = [answer("chosen", chosen)?, answer("rejected", rejected)?];
    let start = shared_messages(&answers);
    let (prompt, variables) = match prompt {
        _ if start > 0 => (answers[0][..start].to_vec(), variables(&mut fields)?),
        None => before(fields)?,
        Some(Value::String(text)) if !is_list(&text) => {
            (vec![message("user", &text)], variables(&mut fields)?)
        }
        Some(prompt) => (spoken("prompt", prompt)?, variables(&mut fields)?),
    };
    Ok(Answers::Messages {
        prompt,
        answers: answers.map(|answer| answer[start..].to_vec()).to_vec(),
        variables,
    })
}

/// A text that is no list of messages.
fn plain(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !is_list(text))
}

/// How many messages both conversations begin with, if they are whole ones: answers alone begin with what the
/// assistant says.
fn shared_messages([chosen, rejected]: &[Vec<Message>; 2]) -> usize {
    let is_whole = |messages: &[Message]| {
        let first = messages.first().and_then(|first| first.get("role"));
        first.is_some_and(|first| first == "user" || first == "system")
    };
    if !is_whole(chosen) || !is_whole(rejected) {
        return 0;
    }
    let same = chosen.iter().zip(rejected).take_while(|(a, b)| a == b);
    // Where one begins with the other, its last message is an answer all the same.
    let shorter = chosen.len().min(rejected.len());
    same.count().min(shorter - 1)
}

/// The conversation, or the instruction, that stands beside answers.
fn before(mut fields: Map<String, Value>) -> Result<(Vec<Message>, Variables), RowError> {
    // Beside two answers it would be another one.
    fields.remove("output");
    let names: Vec<String> = fields.keys().cloned().collect();
    let found = conversation(&mut fields)?;
    let (messages, variables) = found.ok_or(RowError::NoPrompt { fields: names })?;
    match messages.last().is_some_and(is_assistant) {
        true => Err(RowError::AnsweredPrompt),
        false => Ok((messages, variables)),
    }
}

/// The prompt that both texts begin with, and what follows it in each. A field that has the prompt under
/// another name is an error.
fn implied<'a>(
    fields: &Map<String, Value>,
    [chosen, rejected]: [&'a str; 2],
) -> Result<(&'a str, [&'a str; 2]), RowError> {
    let names: Vec<String> = fields.keys().cloned().collect();
    let start = shared_text(chosen, rejected);
    let has_texts = fields.values().any(Value::is_string);
    if asked(&names).is_some() || (start == 0 && has_texts) {
        return Err(RowError::NoPrompt { fields: names });
    }
    Ok((&chosen[..start], [&chosen[start..], &rejected[start..]]))
}

/// The bytes that both texts begin with, but for a space at the end: where the prompt ends.
fn shared_text(a: &str, b: &str) -> usize {
    let end = common_start(a, b);
    if end == a.len().min(b.len()) {
        // Where one begins with the other, its last character is an answer all the same.
        let last = a[..end].chars().next_back().map_or(0, char::len_utf8);
        return end - last;
    }
    a[..end].strip_suffix(' ').map_or(end, str::len)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(row: Value) -> Result<Answers, RowError> {
        let mut fields = row.as_object().unwrap().clone();
        let answers = ["chosen", "rejected"].map(|name| fields.remove(name).unwrap());
        super::answers(fields, answers)
    }

    fn said(role: &str, content: &str) -> Value {
        json!({"role": role, "content": content})
    }

    #[test]
    fn what_stands_beside_a_prompt_is_no_prompt() {
        let (user, good) = (said("user", "Q"), said("assistant", "a"));
        let bad = said("assistant", "b");
        let expected = json!({"prompt": [user], "chosen": [good], "rejected": [bad]});
        let expected = read(expected).unwrap();
        let (chosen, rejected) = (json!([user, good]), json!([user, bad]));
        for row in [
            // As UltraFeedback has it.
            json!({"prompt": "Q", "messages": chosen, "chosen": chosen, "rejected": rejected}),
            json!({"messages": chosen, "chosen": chosen, "rejected": rejected}),
            json!({"prompt": [user], "chosen": chosen, "rejected": rejected}),
            json!({"prompt": [user], "messages": chosen, "chosen": "a", "rejected": "b"}),
            json!({"instruction": "Q", "output": "a", "chosen": "a", "rejected": "b"}),
        ] {
            assert_eq!(read(row.clone()).unwrap(), expected, "{row}");
        }
        let texts = json!({"prompt": "Q", "messages": chosen, "chosen": "a", "rejected": "b"});
        let expected = json!({"prompt": "Q", "chosen": "a", "rejected": "b"});
        assert_eq!(read(texts).unwrap(), read(expected).unwrap());
    }

    #[test]
    fn prompts_that_are_not_there_are_told() {
        let (question, answer) = (said("user", "Q"), said("assistant", "a"));
        for (row, says) in [
            (
                json!({"system": "S", "question": "Q", "chosen": "I do", "rejected": "I do not"}),
                "--columns instruction=question",
            ),
            (
                json!({"input": "Q", "chosen": "a", "rejected": "b"}),
                "--columns prompt=input",
            ),
            (
                json!({"said": "Q", "chosen": "a", "rejected": "b"}),
                "has said",
            ),
            (
                json!({"chosen": [answer], "rejected": [said("assistant", "b")]}),
                "no prompt",
            ),
            (
                json!({"messages": [question, answer], "chosen": "a", "rejected": "b"}),
                "ends with an answer",
            ),
        ] {
            let error = read(row.clone()).unwrap_err().to_string();
            assert!(error.contains(says), "{row}: {error}");
        }
        let alone = read(json!({"chosen": "yes", "rejected": "no"})).unwrap();
        let expected = read(json!({"prompt": "", "chosen": "yes", "rejected": "no"}));
        assert_eq!(alone, expected.unwrap());
    }
}
