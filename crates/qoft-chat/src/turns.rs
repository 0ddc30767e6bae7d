//! Where the turns are in a rendered conversation, for templates that do not mark them.
//!
//! A template shows where a turn starts and ends when it renders the messages before the turn and
//! the messages up to its end: both texts are the beginning of the whole one. Some templates
//! write a turn differently when it is the last one, or end every conversation with a token of
//! its own. Then the place of its content settles the matter; it is found by rendering once more
//! with probes in the contents: in all of the assistant's at once, or in one where that changes more.
//!
//! In a long conversation only some messages before each turn are rendered instead of all ([`window`]),
//! which is checked for some of the turns.

mod view;
mod window;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value;

use crate::error::ChatError;
use crate::marks::{probes, unused_marks};
use crate::{ChatTemplate, Message, Rendered, Variables};
use view::{View, append, says_something};

/// A conversation and the text of all of it.
pub(crate) struct Turns<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Message],
    variables: &'a Variables,
    text: String,
    /// A character that the text does not contain.
    probe: char,
    /// Another one.
    cut: char,
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
        let [probe, cut] = unused_marks(&text);
        Ok(Self {
            template,
            messages,
            variables,
            probe,
            cut,
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
        match self.spans_by_windows(learns, reach) {
            Some(spans) => Ok(spans),
            None => self.spans(learns, reach),
        }
    }

    /// The same, with all messages before each turn rendered.
    fn spans(
        &self,
        learns: &dyn Fn(usize) -> bool,
        reach: usize,
    ) -> Result<Vec<Range<usize>>, ChatError> {
        let mut spans = Vec::new();
        for index in self.learned(learns) {
            match self.span(index, reach)? {
                Some(span) => spans.push(span),
                None => break,
            }
        }
        Ok(spans)
    }

    /// The indices of the assistant's messages that are learned.
    fn learned(&self, learns: &dyn Fn(usize) -> bool) -> impl Iterator<Item = usize> {
        (0..self.messages.len())
            .filter(move |&index| is_assistant(&self.messages[index]) && learns(index))
    }

    /// The range of the assistant's turn `index`, if it starts within the first `reach` bytes.
    fn span(&self, index: usize, reach: usize) -> Result<Option<Range<usize>>, ChatError> {
        let view = self.whole(index);
        let start = view.start()?;
        if start >= reach {
            return Ok(None);
        }
        let turn = start..view.end(start)?;
        if turn.start > turn.end {
            return Err(view.unclear());
        }
        Ok(Some(view.without_gap(turn)))
    }

    /// The range from message `index` to the end of the text.
    pub(crate) fn span_from(&self, index: usize) -> Result<Range<usize>, ChatError> {
        Ok(self.whole(index).start()?..self.text.len())
    }

    /// The text, with `learned` as the ranges to learn.
    pub(crate) fn into_rendered(self, learned: Vec<Range<usize>>) -> Rendered {
        Rendered {
            text: self.text,
            learned,
        }
    }

    /// Message `index` among all messages.
    fn whole(&self, index: usize) -> View<'_> {
        View {
            turns: self,
            messages: Cow::Borrowed(self.messages),
            at: index,
            index,
            text: &self.text,
            cut: None,
        }
    }

    /// Where the content of the assistant's message `index` ends, if one rendering shows it.
    fn content_end(&self, index: usize) -> Option<usize> {
        self.content_ends().get(&index).copied()
    }

    /// Where the contents of the assistant's messages end, by one rendering with a probe of its own
    /// in each of them; empty unless that is the text otherwise. Those that say nothing are left out: many
    /// templates write more around a text.
    fn content_ends(&self) -> &HashMap<usize, usize> {
        self.content_ends.get_or_init(|| {
            let mut messages = self.messages.to_vec();
            let of_assistant = messages.iter_mut().enumerate();
            let of_assistant = of_assistant
                .filter(|(_, message)| is_assistant(message) && says_something(message));
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

    fn text_of(&self, messages: &[Message], prompt: bool) -> Result<String, ChatError> {
        self.template
            .render_prepared(messages, self.variables, prompt)
    }
}
