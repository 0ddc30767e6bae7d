//! Where the turns are in a rendered conversation, for templates that do not mark them.
//!
//! A template shows where a turn starts and ends when it renders the messages before the turn and
//! the messages up to its end: both texts are the beginning of the whole one. Some templates
//! write a turn differently when it is the last one, or end every conversation with a token of
//! its own. Then the place of its content settles the matter; it is found by rendering once more
//! with probes in the contents: in all of the assistant's at once, or in one where that changes more.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;

use serde_json::{Value, json};

use crate::error::ChatError;
use crate::marks::{probes, unused_mark};
use crate::{ChatTemplate, Message, Rendered, Variables};

/// A conversation and the text of all of it.
pub(crate) struct Turns<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Message],
    variables: &'a Variables,
    text: String,
    /// A character that the text does not contain.
    probe: char,
    /// Where the contents of the assistant's messages end, by index, as far as one rendering shows
    /// them.
    content_ends: OnceCell<HashMap<usize, usize>>,
}

/// Whether the assistant wrote `message`.
#[must_use]
pub fn is_assistant(message: &Message) -> bool {
    message.get("role").and_then(Value::as_str) == Some("assistant")
}

impl<'a> Turns<'a> {
    /// Renders the whole conversation of prepared messages.
    pub(crate) fn render(
        template: &'a ChatTemplate,
        messages: &'a [Message],
        variables: &'a Variables,
    ) -> Result<Self, ChatError> {
        let text = template.render_prepared(messages, variables, false)?;
        Ok(Self {
            template,
            messages,
            variables,
            probe: unused_mark(&text),
            text,
            content_ends: OnceCell::new(),
        })
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The ranges of the assistant's turns that are learned and start within the first `reach`
    /// bytes of the text.
    pub(crate) fn assistant_spans(
        &self,
        learns: &dyn Fn(usize) -> bool,
        reach: usize,
    ) -> Result<Vec<Range<usize>>, ChatError> {
        let mut spans = Vec::new();
        for index in 0..self.messages.len() {
            if !is_assistant(&self.messages[index]) || !learns(index) {
                continue;
            }
            let start = self.start(index)?;
            if start >= reach {
                break;
            }
            let turn = start..self.end(index, start)?;
            if turn.start > turn.end {
                return Err(unclear(index));
            }
            spans.push(self.without_gap(index, turn));
        }
        Ok(spans)
    }

    /// The range from message `index` to the end of the text.
    pub(crate) fn span_from(&self, index: usize) -> Result<Range<usize>, ChatError> {
        Ok(self.start(index)?..self.text.len())
    }

    /// The text, with `learned` as the ranges to learn.
    pub(crate) fn into_rendered(self, learned: Vec<Range<usize>>) -> Rendered {
        Rendered {
            text: self.text,
            learned,
        }
    }

    /// Where message `index` starts: for an assistant's turn, behind the generation prompt.
    fn start(&self, index: usize) -> Result<usize, ChatError> {
        let is_assistant = self.messages.get(index).is_some_and(is_assistant);
        // Many templates refuse a conversation without messages: the first turn has none before.
        let before = self.text_of(&self.messages[..index], is_assistant);
        match before {
            Ok(before) if self.text.starts_with(&before) => return Ok(before.len()),
            Err(error) if index > 0 && !is_assistant => return Err(error),
            _ => {}
        }
        // The generation prompt may write more than the header of the turn, for example the start
        // of a thought that the finished turn lacks.
        if !is_assistant {
            return Err(unclear(index));
        }
        self.header_end(index)?.ok_or_else(|| unclear(index))
    }

    /// Where the header of the assistant's turn `index` ends and what it says starts.
    ///
    /// A short turn in its place shows the header. A question behind it keeps it from being the
    /// last one, which templates like to write in a way of its own.
    fn header_end(&self, index: usize) -> Result<Option<usize>, ChatError> {
        let mut messages = self.messages[..index].to_vec();
        messages.push(message("assistant", &self.probe.to_string()));
        messages.push(message("user", "?"));
        Ok(self.probed_edge(&self.text_of(&messages, false)?, &self.text))
    }

    /// `turn` without the white space that separates it from the next one. Where no mark stands
    /// between the content and the white space, the white space itself ends the turn and stays.
    fn without_gap(&self, index: usize, turn: Range<usize>) -> Range<usize> {
        let Some(text) = self.text.get(turn.clone()).map(str::trim_end) else {
            return turn;
        };
        let content = self.messages.get(index).and_then(last_text);
        let content = content.unwrap_or_default().trim_end();
        if text.is_empty() || (!content.is_empty() && text.ends_with(content)) {
            return turn;
        }
        turn.start..turn.start + text.len()
    }

    /// Where the turn of message `index` ends, with the mark that closes it.
    fn end(&self, index: usize, start: usize) -> Result<usize, ChatError> {
        let last = self.messages.len() - 1;
        if index == last {
            return Ok(self.text.len());
        }
        let content_end = match self.content_ends().get(&index) {
            Some(end) => Some(*end),
            None => self.content_end(self.messages, &self.text, index, false)?,
        };
        let Some(content_end) = content_end else {
            return self.end_without_content(index, start);
        };
        let behind = &self.text[content_end..];
        // The conversation up to this turn shows its mark, unless the template refuses that part;
        // then another turn of the assistant shows it.
        let through = match self.text_of(&self.messages[..=index], false) {
            Ok(closed) if self.text.starts_with(&closed) => return Ok(closed.len()),
            Ok(closed) => Some((index, closed)),
            Err(_) if is_assistant(&self.messages[last]) => Some((last, self.text.clone())),
            Err(_) => None,
        };
        let (through, closed) = through.ok_or_else(|| unclear(index))?;
        let messages = &self.messages[..=through];
        let closed_end = self.content_end(messages, &closed, through, false)?;
        let closing = closed_end
            .map(|end| &closed[end..])
            .ok_or_else(|| unclear(index))?;
        match shared_closing(closing, behind) {
            0 => Ok(content_end + self.closing_before_prompt(through, behind)?),
            length => Ok(content_end + length),
        }
    }

    /// The length of the mark before `behind` for templates that close the last turn of all in
    /// another way: it is what a turn before a generation prompt is closed with.
    fn closing_before_prompt(&self, index: usize, behind: &str) -> Result<usize, ChatError> {
        let through = &self.messages[..=index];
        let prompted = self.text_of(through, true)?;
        let end = self.content_end(through, &prompted, index, true)?;
        let closing = end
            .map(|end| &prompted[end..])
            .ok_or_else(|| unclear(index))?;
        let shared = shared_closing(closing, behind);
        // The mark that opens the next turn may be shared as well.
        Ok(behind[..shared]
            .find(['>', ']'])
            .map_or(shared, |end| end + 1))
    }

    /// Where the turn of message `index` ends, if the text does not show its content.
    fn end_without_content(&self, index: usize, start: usize) -> Result<usize, ChatError> {
        let closed = self.text_of(&self.messages[..=index], false)?;
        if self.text.starts_with(&closed) {
            return Ok(closed.len());
        }
        if !self
            .text
            .starts_with(closed.get(..start).unwrap_or(&closed))
        {
            return Err(unclear(index));
        }
        let closing = closed.get(start..).unwrap_or_default();
        match shared_closing(closing, &self.text[start..]) {
            0 => Err(unclear(index)),
            length => Ok(start + length),
        }
    }

    /// Where the content of message `index` ends in `text`, which shows `messages`; `None` when
    /// the text does not show it.
    fn content_end(
        &self,
        messages: &[Message],
        text: &str,
        index: usize,
        prompt: bool,
    ) -> Result<Option<usize>, ChatError> {
        let mut messages = messages.to_vec();
        let Some(message) = messages.get_mut(index) else {
            return Ok(None);
        };
        if !append(message, self.probe) {
            return Ok(None);
        }
        Ok(self.probed_edge(&self.text_of(&messages, prompt)?, text))
    }

    /// Where the contents of the assistant's messages end, by one rendering with a probe of its own
    /// in each of them; empty unless that is the text otherwise.
    fn content_ends(&self) -> &HashMap<usize, usize> {
        self.content_ends.get_or_init(|| {
            let mut messages = self.messages.to_vec();
            let of_assistant = messages.iter_mut().enumerate();
            let of_assistant = of_assistant.filter(|(_, message)| is_assistant(message));
            let probed: HashMap<char, usize> = probes(&self.text)
                .zip(of_assistant)
                .filter_map(|(probe, (index, message))| {
                    append(message, probe).then_some((probe, index))
                })
                .collect();
            let probed_text = self.text_of(&messages, false).unwrap_or_default();
            let mut text = String::with_capacity(self.text.len());
            let mut ends = HashMap::new();
            for c in probed_text.chars() {
                match probed.get(&c) {
                    Some(&index) => {
                        ends.entry(index).or_insert(text.len());
                    }
                    None => text.push(c),
                }
            }
            if text == self.text {
                ends
            } else {
                HashMap::new()
            }
        })
    }

    /// Where `probed`, which is `text` with a probe in it, shows the probe; `None` when the two
    /// differ in something else before it.
    fn probed_edge(&self, probed: &str, text: &str) -> Option<usize> {
        let edge = shared_prefix(probed, text);
        probed[edge..].starts_with(self.probe).then_some(edge)
    }

    fn text_of(&self, messages: &[Message], prompt: bool) -> Result<String, ChatError> {
        self.template
            .render_prepared(messages, self.variables, prompt)
    }
}

fn message(role: &str, content: &str) -> Message {
    let entries = [("role", role), ("content", content)];
    entries
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect()
}

/// The last text of a message's content, which may be missing.
fn last_text(message: &Message) -> Option<&str> {
    match message.get("content") {
        None | Some(Value::Null) => Some(""),
        Some(Value::Array(parts)) => parts
            .iter()
            .rev()
            .find_map(|part| part.get("text")?.as_str()),
        Some(content) => content.as_str(),
    }
}

/// Writes `probe` behind the last text of a message's content; false when it is no text. Many
/// templates cut off white space at its end, so the probe stands before it.
fn append(message: &mut Message, probe: char) -> bool {
    let content = message.entry("content").or_insert_with(|| json!(""));
    let text = match content {
        Value::Array(parts) => parts.iter_mut().rev().find_map(|part| part.get_mut("text")),
        content => Some(content),
    };
    let Some(Value::String(text)) = text else {
        return false;
    };
    text.insert(text.trim_end().len(), probe);
    true
}

/// The length of the closing mark that `closing`, which ends a conversation, and `behind`, which
/// goes on, have in common; 0 when there is none. They may part inside of two marks that begin
/// alike, such as `<|end|>` and `<|user|>`; such a beginning belongs to neither turn.
fn shared_closing(closing: &str, behind: &str) -> usize {
    let shared = shared_prefix(closing, behind);
    if shared == closing.len() {
        return shared;
    }
    let text = &closing[..shared];
    let closed = text.rfind(['>', ']']);
    match text.rfind(['<', '[']) {
        Some(opened) if closed.is_none_or(|closed| closed < opened) => opened,
        _ => shared,
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
