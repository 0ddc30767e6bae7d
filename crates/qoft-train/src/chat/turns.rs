//! Where the turns are in a rendered conversation, for templates that do not mark them.
//!
//! A template shows where a turn starts and ends when it renders the messages before the turn and
//! the messages up to its end: both texts are the beginning of the whole one. Some templates
//! write a turn differently when it is the last one. Then the place of its content settles the
//! matter; it is found by rendering once more with a probe in the content.

use std::ops::Range;

use minijinja::{Value, context};

use super::{ChatError, ChatTemplate, Message, Rendered, Variables};

/// A noncharacter, which a template has no reason to write or to remove.
const PROBE: char = '\u{FDD2}';

/// A conversation and the text of all of it.
pub(super) struct Turns<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Message],
    values: Vec<Value>,
    variables: Value,
    text: String,
}

impl<'a> Turns<'a> {
    /// Renders the whole conversation.
    pub(super) fn render(
        template: &'a ChatTemplate,
        messages: &'a [Message],
        variables: &Variables,
    ) -> Result<Self, ChatError> {
        let mut turns = Self {
            template,
            messages,
            values: template.values(messages)?,
            variables: Value::from_serialize(variables),
            text: String::new(),
        };
        turns.text = turns.text_of(&turns.values, false)?;
        Ok(turns)
    }

    /// The ranges of the assistant's turns.
    pub(super) fn assistant_spans(&self) -> Result<Vec<Range<usize>>, ChatError> {
        (0..self.messages.len())
            .filter(|&index| self.is_assistant(index))
            .map(|index| {
                let turn = self.start(index)?..self.end(index)?;
                Ok(self.without_gap(index, turn))
            })
            .collect()
    }

    /// The range from message `index` to the end of the text.
    pub(super) fn span_from(&self, index: usize) -> Result<Range<usize>, ChatError> {
        Ok(self.start(index)?..self.text.len())
    }

    /// The text, with `learned` as the ranges to learn.
    pub(super) fn into_rendered(self, learned: Vec<Range<usize>>) -> Rendered {
        Rendered {
            text: self.text,
            learned,
        }
    }

    fn is_assistant(&self, index: usize) -> bool {
        let role = self
            .messages
            .get(index)
            .and_then(|message| message.get("role"));
        role.and_then(serde_json::Value::as_str) == Some("assistant")
    }

    /// Where message `index` starts: for an assistant's turn, behind the generation prompt.
    fn start(&self, index: usize) -> Result<usize, ChatError> {
        let before = &self.values[..index];
        let prompt = self.text_of(before, self.is_assistant(index))?;
        if self.text.starts_with(&prompt) {
            return Ok(prompt.len());
        }
        // The generation prompt may write more than the header of the turn, for example the start
        // of a thought that the finished turn lacks.
        if !self.is_assistant(index) {
            return Err(unclear(index));
        }
        self.header_end(index)?.ok_or_else(|| unclear(index))
    }

    /// Where the header of the assistant's turn `index` ends and what it says starts.
    ///
    /// A short turn in its place shows the header. A question behind it keeps it from being the
    /// last one, which templates like to write in a way of its own.
    fn header_end(&self, index: usize) -> Result<Option<usize>, ChatError> {
        let mut values = self.values[..index].to_vec();
        values.push(context! { role => "assistant", content => PROBE });
        values.push(context! { role => "user", content => "?" });
        Ok(probed_edge(&self.text_of(&values, false)?, &self.text))
    }

    /// `turn` without the white space that separates it from the next one. Where no mark stands
    /// between the content and the white space, the white space itself ends the turn and stays.
    fn without_gap(&self, index: usize, turn: Range<usize>) -> Range<usize> {
        let Some(text) = self.text.get(turn.clone()).map(str::trim_end) else {
            return turn;
        };
        let content = content_text(&self.messages[index])
            .unwrap_or_default()
            .trim_end();
        if text.is_empty() || (!content.is_empty() && text.ends_with(content)) {
            return turn;
        }
        turn.start..turn.start + text.len()
    }

    /// Where the turn of message `index` ends, with the mark that closes it.
    fn end(&self, index: usize) -> Result<usize, ChatError> {
        let through = &self.values[..=index];
        let closed = self.text_of(through, false)?;
        if self.text.starts_with(&closed) {
            return Ok(closed.len());
        }
        let closing = self
            .content_end(through, &closed, index)?
            .map(|end| &closed[end..])
            .ok_or_else(|| unclear(index))?;
        self.content_end(&self.values, &self.text, index)?
            .filter(|&end| self.text[end..].starts_with(closing))
            .map(|end| end + closing.len())
            .ok_or_else(|| unclear(index))
    }

    /// Where the content of message `index` ends in `text`, which shows `values`; `None` when the
    /// text does not show it.
    fn content_end(
        &self,
        values: &[Value],
        text: &str,
        index: usize,
    ) -> Result<Option<usize>, ChatError> {
        let Some(content) = content_text(&self.messages[index]) else {
            return Ok(None);
        };
        let mut message = self.messages[index].clone();
        message.insert("content".to_owned(), format!("{content}{PROBE}").into());
        let mut values = values.to_vec();
        values[index] = Value::from_serialize(message);
        Ok(probed_edge(&self.text_of(&values, false)?, text))
    }

    fn text_of(&self, messages: &[Value], generation_prompt: bool) -> Result<String, ChatError> {
        self.template
            .render_plain(messages, &self.variables, generation_prompt)
    }
}

/// Where `probed`, which is `text` with a probe in it, shows the probe; `None` when the two differ
/// in something else before it.
fn probed_edge(probed: &str, text: &str) -> Option<usize> {
    let edge = shared_prefix(probed, text);
    probed[edge..].starts_with(PROBE).then_some(edge)
}

/// The content of `message`, which may be missing; `None` when it is not a text.
fn content_text(message: &Message) -> Option<&str> {
    match message.get("content") {
        None | Some(serde_json::Value::Null) => Some(""),
        Some(content) => content.as_str(),
    }
}

/// The length in bytes of the longest text that both start with.
fn shared_prefix(a: &str, b: &str) -> usize {
    a.chars()
        .zip(b.chars())
        .take_while(|(a, b)| a == b)
        .map(|(c, _)| c.len_utf8())
        .sum()
}

fn unclear(index: usize) -> ChatError {
    ChatError::Turn { number: index + 1 }
}
