//! Turns of long conversations, found without all messages before each of them.
//!
//! To find turn after turn by all messages before takes a time that grows with the square of their number.
//! A window has the first message if it is the system's, a question, and some messages up to
//! the turn, from one of the assistant on whose content shows where it ends in the text. What the template
//! writes behind that content has to be what the text has there, as with all messages. A
//! template may still look further back, so turn 1, 2, 4, 8 and so on are found by all messages as well. If
//! one differs, no window is used.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

use super::view::{View, append};
use super::{Turns, is_assistant};
use crate::Message;

/// Conversations with fewer messages need no windows.
const LONG: usize = 24;
/// A window begins so many messages before the turn, or before that.
const BEFORE: usize = 6;
/// Messages behind the turn, so that it is not the last one.
const BEHIND: usize = 2;

impl Turns<'_> {
    /// The ranges of the assistant's turns that are learned and start within the first `reach` bytes of
    /// the text; `None` if windows do not show them.
    pub(super) fn spans_by_windows(
        &self,
        learns: &dyn Fn(usize) -> bool,
        reach: usize,
    ) -> Option<Vec<Range<usize>>> {
        if self.messages.len() < LONG || self.content_ends().is_empty() {
            return None;
        }
        let mut spans = Vec::new();
        let mut in_windows = 0_usize;
        for index in self.learned(learns) {
            let Some(span) = self.span_by_window(index) else {
                match self.span(index, reach).ok()? {
                    Some(span) => spans.push(span),
                    None => break,
                }
                continue;
            };
            if span.start >= reach {
                break;
            }
            in_windows += 1;
            if in_windows.is_power_of_two() && self.span(index, reach).ok()?.as_ref() != Some(&span)
            {
                return None;
            }
            spans.push(span);
        }
        Some(spans)
    }

    /// The range of the assistant's turn `index`, if there is a window that shows it.
    fn span_by_window(&self, index: usize) -> Option<Range<usize>> {
        let view = self.window(index)?;
        let start = view.start().ok()?;
        let end = view.end(start).ok()?;
        if start > end {
            return None;
        }
        let cut = self.text.len() - view.text.len();
        let span = view.without_gap(start..end);
        Some(cut + span.start..cut + span.end)
    }

    /// The assistant's turn `index` in a window.
    fn window(&self, index: usize) -> Option<View<'_>> {
        let last = index.checked_sub(BEFORE)?;
        let first = (0..=last)
            .rev()
            .take(BEFORE)
            .find(|before| self.content_end(*before).is_some())?;
        let has_role =
            |message: &Message, wanted| message.get("role").and_then(Value::as_str) == Some(wanted);
        let question = (0..first)
            .rev()
            .find(|before| has_role(&self.messages[*before], "user"))?;
        let mut messages = Vec::new();
        if question > 0 && !has_role(&self.messages[0], "user") && !is_assistant(&self.messages[0])
        {
            messages.push(self.messages[0].clone());
        }
        messages.push(self.messages[question].clone());
        let mut anchor = self.messages[first].clone();
        append(&mut anchor, self.cut).then_some(())?;
        messages.push(anchor);
        let at = messages.len() + index - first - 1;
        let end = (index + 1 + BEHIND).min(self.messages.len());
        messages.extend_from_slice(&self.messages[first + 1..end]);
        Some(View {
            turns: self,
            messages: Cow::Owned(messages),
            at,
            index,
            text: &self.text[self.content_end(first)?..],
            cut: Some(self.cut),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::error::ChatError;
    use crate::messages::prepared_messages;
    use crate::template::on_large_stack;
    use crate::tool_calls::with_arguments;
    use crate::{ChatTemplate, Variables};

    fn read_json(name: &str) -> Value {
        serde_json::from_slice(&fs::read(qoft_fixtures::path(name)).unwrap()).unwrap()
    }

    fn templates() -> Vec<(String, ChatTemplate)> {
        let tokens = json!({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"});
        let mut all = Vec::new();
        for package in ["axolotl", "trl", "unsloth"] {
            let folder = qoft_fixtures::path("templates").join(package);
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let source = fs::read_to_string(&path).unwrap();
                let template = ChatTemplate::new(&source, tokens.as_object().unwrap());
                all.push((path.display().to_string(), template.unwrap()));
            }
        }
        all
    }

    /// Conversations of the fixtures with what follows the system's message several times, and of all
    /// in turn.
    fn long_conversations() -> Vec<(Vec<Message>, Variables)> {
        let given = read_json("templates/conversations.json");
        let mut all = Vec::new();
        let mut mixed: Vec<Message> = Vec::new();
        for conversation in given.as_array().unwrap() {
            let messages: Vec<Message> =
                serde_json::from_value(conversation["messages"].clone()).unwrap();
            let role = |message: &Message| message["role"].as_str().unwrap_or_default().to_owned();
            let start = usize::from(role(&messages[0]) == "system");
            let (system, rest) = messages.split_at(start);
            if role(&rest[0]) != "user" || !is_assistant(&rest[rest.len() - 1]) {
                continue;
            }
            let mut variables = Variables::new();
            variables.insert("tools".to_owned(), conversation["tools"].clone());
            variables.extend(
                conversation["variables"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default(),
            );
            let times = (LONG + 8).div_ceil(rest.len());
            let mut long = [system, &vec![rest; times].concat()].concat();
            let last = long.len() - 1;
            long[last].insert("content".to_owned(), "The end.".into());
            all.push((long, variables));
            mixed.extend_from_slice(rest);
        }
        let tools = json!({"tools": given[5]["tools"]});
        all.push((
            [mixed.clone(), mixed].concat(),
            tools.as_object().unwrap().clone(),
        ));
        all
    }

    #[test]
    fn turns_are_where_all_messages_show_them() {
        let conversations = long_conversations();
        let (mut found, mut turns, mut wrong) = (0, 0, Vec::new());
        for (name, template) in templates() {
            for (number, (messages, variables)) in conversations.iter().enumerate() {
                let compared = on_large_stack(|| {
                    let messages = prepared_messages(messages);
                    let messages = with_arguments(&template, messages, variables)?;
                    let all = Turns::render(&template, &messages, variables)?;
                    let mut compared = Vec::new();
                    for index in all.learned(&|_| true) {
                        compared.push((
                            index,
                            all.span_by_window(index),
                            all.span(index, usize::MAX).ok().flatten(),
                        ));
                    }
                    Ok::<_, ChatError>(compared)
                });
                // Some templates refuse some conversations.
                for (index, in_window, in_all) in compared.unwrap_or_default() {
                    turns += 1;
                    let Some(in_window) = in_window else {
                        continue;
                    };
                    found += 1;
                    if in_all.as_ref() != Some(&in_window) {
                        wrong.push(format!("{name} {number} {index}: {in_window:?} {in_all:?}"));
                    }
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{} wrong:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
        assert!(found * 2 > turns, "{found} of {turns} turns in windows");
    }
}
