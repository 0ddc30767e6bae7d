//! Where one turn is, in what is rendered to find it: the whole conversation, or a part of it.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Value, json};

use super::{Turns, is_assistant};
use crate::Message;
use crate::error::ChatError;

/// Writes a character into a message; false if it has no place for it.
type Probe = fn(&mut Message, char) -> bool;

/// A turn among messages. All places count from the start of `text`.
pub(super) struct View<'a> {
    pub(super) turns: &'a Turns<'a>,
    /// The messages that are rendered.
    pub(super) messages: Cow<'a, [Message]>,
    /// The index of the turn's message among them.
    pub(super) at: usize,
    /// Its index in the conversation.
    pub(super) index: usize,
    /// The text of the conversation, or the part of it that follows `cut`.
    pub(super) text: &'a str,
    /// A mark in an earlier message: of what is rendered, only what follows it counts.
    pub(super) cut: Option<char>,
}

impl View<'_> {
    /// Where the assistant's turn starts, behind the generation prompt, or where the message of
    /// another one starts.
    pub(super) fn start(&self) -> Result<usize, ChatError> {
        let is_assistant = self.messages.get(self.at).is_some_and(is_assistant);
        // Many templates refuse a conversation without messages: the first turn has none before.
        let before = self.text_of(&self.messages[..self.at], is_assistant);
        match before {
            Ok(before) if self.text.starts_with(&before) => return Ok(before.len()),
            Err(error) if self.at > 0 && !is_assistant => return Err(error),
            _ => {}
        }
        if !is_assistant {
            return Err(self.unclear());
        }
        if let Ok(before) = before
            && let Some(start) = self.behind_previous(&before)?
        {
            return Ok(start);
        }
        // The generation prompt may write more than the header of the turn, for example the start
        // of a thought that the finished turn lacks.
        self.header_end()?.ok_or_else(|| self.unclear())
    }

    /// Where the turn starts if what stands in `before`, which ends with the generation prompt, behind the
    /// content of the message before the turn stands in the text as well. The text may be another one before
    /// that: templates drop old thoughts, and tell of tools in the last question.
    fn behind_previous(&self, before: &str) -> Result<Option<usize>, ChatError> {
        let Some(previous) = self.at.checked_sub(1) else {
            return Ok(None);
        };
        let end = |messages: &[Message], text: &str, prompt| {
            self.probed_end(messages, text, previous, prompt, append)
        };
        let Some(here) = end(&self.messages, self.text, false)? else {
            return Ok(None);
        };
        let there = end(&self.messages[..self.at], before, true)?;
        let closing = there.map(|end| &before[end..]);
        // White space alone shows nothing.
        let starts = closing
            .filter(|closing| !closing.trim().is_empty() && self.text[here..].starts_with(closing));
        Ok(starts.map(|closing| here + closing.len()))
    }

    /// Where the header of the assistant's turn ends and what it says starts.
    ///
    /// A short turn in its place shows the header. A question behind it keeps it from being the
    /// last one, which templates like to write in a way of its own.
    fn header_end(&self) -> Result<Option<usize>, ChatError> {
        let mut messages = self.messages[..self.at].to_vec();
        messages.push(message("assistant", &self.turns.probe.to_string()));
        messages.push(message("user", "?"));
        Ok(self.probed_edge(&self.text_of(&messages, false)?, self.text))
    }

    /// `turn` without the white space that separates it from the next one. Where no mark stands
    /// between the content and the white space, the white space itself ends the turn and stays.
    pub(super) fn without_gap(&self, turn: Range<usize>) -> Range<usize> {
        let Some(text) = self.text.get(turn.clone()).map(str::trim_end) else {
            return turn;
        };
        let content = self.messages.get(self.at).and_then(last_text);
        let content = content.unwrap_or_default().trim_end();
        if text.is_empty() || (!content.is_empty() && text.ends_with(content)) {
            return turn;
        }
        turn.start..turn.start + text.len()
    }

    /// Where the turn that starts at `start` ends, with the mark that closes it.
    pub(super) fn end(&self, start: usize) -> Result<usize, ChatError> {
        if self.index + 1 == self.turns.messages.len() {
            return Ok(self.text.len());
        }
        // What is cut off stands before the turn.
        let cut = self.turns.text.len() - self.text.len();
        let known = self.turns.content_end(self.index).map(|end| end - cut);
        let probed = |probe: Probe| {
            let end = self.probed_end(&self.messages, self.text, self.at, false, probe);
            Ok::<_, ChatError>(end?.map(|end| (end, probe)))
        };
        let shown = match known {
            Some(end) => Some((end, append as Probe)),
            None => probed(append)?,
        };
        // Many templates write a call and not what is said with it, or only the first call.
        let by_call = |probe| probed(probe).unwrap_or(None);
        let shown = shown
            .or_else(|| by_call(append_to_last_call))
            .or_else(|| by_call(append_to_first_call));
        let Some((content_end, probe)) = shown else {
            return self.end_without_content(start);
        };
        let behind = &self.text[content_end..];
        // The conversation up to this turn shows its mark, unless the template refuses that part;
        // then another turn of the assistant shows it.
        let last = self.messages.len() - 1;
        let through = match self.text_of(&self.messages[..=self.at], false) {
            Ok(closed) if self.text.starts_with(&closed) => return Ok(closed.len()),
            Ok(closed) => Some((self.at, closed)),
            Err(_) if self.cut.is_none() && is_assistant(&self.messages[last]) => {
                Some((last, self.text.to_owned()))
            }
            Err(_) => None,
        };
        let (through, closed) = through.ok_or_else(|| self.unclear())?;
        let messages = &self.messages[..=through];
        let closed_end = self.probed_end(messages, &closed, through, false, probe)?;
        let closing = closed_end
            .map(|end| &closed[end..])
            .ok_or_else(|| self.unclear())?;
        let shared = shared_closing(closing, behind);
        // White space may stand before two different marks.
        if shared < closing.len() && behind[..shared].trim().is_empty() {
            let closing = self.closing_before_prompt(through, behind, probe);
            return match closing {
                Ok(closing) => Ok(content_end + closing.max(shared)),
                Err(_) if shared > 0 => Ok(content_end + shared),
                Err(error) => Err(error),
            };
        }
        Ok(content_end + shared)
    }

    /// The length of the mark before `behind` for templates that close the last turn of all in
    /// another way: it is what a turn before a generation prompt is closed with.
    fn closing_before_prompt(
        &self,
        through: usize,
        behind: &str,
        probe: Probe,
    ) -> Result<usize, ChatError> {
        let messages = &self.messages[..=through];
        let prompted = self.text_of(messages, true)?;
        let end = self.probed_end(messages, &prompted, through, true, probe)?;
        let closing = end
            .map(|end| &prompted[end..])
            .ok_or_else(|| self.unclear())?;
        let shared = shared_closing(closing, behind);
        // The mark that opens the next turn may be shared as well.
        Ok(behind[..shared]
            .find(['>', ']'])
            .map_or(shared, |end| end + 1))
    }

    /// Where the turn ends, if the text does not show its content.
    fn end_without_content(&self, start: usize) -> Result<usize, ChatError> {
        let closed = self.text_of(&self.messages[..=self.at], false)?;
        if self.text.starts_with(&closed) {
            return Ok(closed.len());
        }
        if !self
            .text
            .starts_with(closed.get(..start).unwrap_or(&closed))
        {
            return Err(self.unclear());
        }
        let closing = closed.get(start..).unwrap_or_default();
        match shared_closing(closing, &self.text[start..]) {
            0 => Err(self.unclear()),
            length => Ok(start + length),
        }
    }

    /// Where the content of message `at`, or what else `probe` writes behind, ends in `text`, which shows
    /// `messages`; `None` when the text does not show it.
    fn probed_end(
        &self,
        messages: &[Message],
        text: &str,
        at: usize,
        prompt: bool,
        probe: Probe,
    ) -> Result<Option<usize>, ChatError> {
        let mut messages = messages.to_vec();
        let Some(message) = messages.get_mut(at) else {
            return Ok(None);
        };
        if !probe(message, self.turns.probe) {
            return Ok(None);
        }
        Ok(self.probed_edge(&self.text_of(&messages, prompt)?, text))
    }

    /// Where `probed`, which is `text` with a probe in it, shows the probe; `None` when the two
    /// differ in something else before it.
    fn probed_edge(&self, probed: &str, text: &str) -> Option<usize> {
        let edge = shared_prefix(probed, text);
        probed[edge..].starts_with(self.turns.probe).then_some(edge)
    }

    fn text_of(&self, messages: &[Message], prompt: bool) -> Result<String, ChatError> {
        let text = self.turns.text_of(messages, prompt)?;
        match self.cut {
            None => Ok(text),
            Some(cut) => {
                let (_, rest) = text.split_once(cut).ok_or_else(|| self.unclear())?;
                Ok(rest.to_owned())
            }
        }
    }

    pub(super) fn unclear(&self) -> ChatError {
        ChatError::Turn {
            number: self.index + 1,
        }
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

/// Whether a message says something that is no white space.
pub(super) fn says_something(message: &Message) -> bool {
    last_text(message).is_some_and(|text| !text.trim().is_empty())
}

/// Writes `probe` behind the last text of a message's content; false when it is no text. Many
/// templates cut off white space at its end, so the probe stands before it.
pub(super) fn append(message: &mut Message, probe: char) -> bool {
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

/// Writes `probe` behind the name of the last function that a message calls.
fn append_to_last_call(message: &mut Message, probe: char) -> bool {
    append_to_call(message, probe, <[Value]>::last_mut)
}

/// Writes `probe` behind the name of the first function that a message calls.
fn append_to_first_call(message: &mut Message, probe: char) -> bool {
    append_to_call(message, probe, <[Value]>::first_mut)
}

fn append_to_call(
    message: &mut Message,
    probe: char,
    choose: fn(&mut [Value]) -> Option<&mut Value>,
) -> bool {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    let Some(call) = calls.and_then(|calls| choose(calls)) else {
        return false;
    };
    let function = match call.get("function") {
        Some(_) => call.get_mut("function"),
        None => Some(call),
    };
    let name = function.and_then(|function| function.get_mut("name"));
    let Some(Value::String(name)) = name else {
        return false;
    };
    name.push(probe);
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
