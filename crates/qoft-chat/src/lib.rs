//! Chat templates: conversations as text, rendered as transformers' `apply_chat_template` does.
//!
//! A template is a Jinja program that comes with the model; `minijinja` runs it, with Python's
//! rules in place of its own. This crate gives templates what transformers gives them, chooses
//! among several ones, and finds out which part of the text the assistant wrote.
//!
//! A template is a stranger's program, so it runs within limits of time, memory and nesting that
//! grow with the conversation. What it would do otherwise than in Python is an error.

mod budget;
mod builtin;
mod error;
mod marks;
mod messages;
mod named;
mod parts;
mod python;
mod template;
mod tool_calls;
mod turns;

use std::ops::Range;

use serde_json::{Map, Value};

use marks::{take_marks, unused_marks};
use messages::prepared_messages;
use named::NamedTemplates;
use template::on_large_stack;
use tool_calls::with_arguments;
use turns::Turns;

pub use builtin::{builtin, builtin_names};
pub use error::{ChatError, TemplateError};
pub use parts::text_of_parts;
pub use turns::is_assistant;

/// One message of a conversation: `role`, `content` and whatever else the template reads.
pub type Message = Map<String, Value>;

/// Variables of a template by name.
pub type Variables = Map<String, Value>;

/// A rendered conversation with the parts to learn.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rendered {
    /// The whole text.
    pub text: String,
    /// The byte ranges of `text` to learn, in order.
    pub learned: Vec<Range<usize>>,
}

/// The chat template of a model, or several with names.
#[derive(Debug)]
pub struct ChatTemplate {
    templates: NamedTemplates,
    special_tokens: Variables,
}

impl ChatTemplate {
    /// Parses the Jinja text `source`.
    ///
    /// The entries of `special_tokens` (`bos_token`, `eos_token`, …) become variables of the
    /// template.
    ///
    /// # Errors
    ///
    /// [`ChatError::Syntax`] when the template does not parse.
    pub fn new(source: &str, special_tokens: &Variables) -> Result<Self, ChatError> {
        Ok(Self {
            templates: NamedTemplates::one(source)?,
            special_tokens: special_tokens.clone(),
        })
    }

    /// Several templates by name. A conversation with tools takes the one named `tool_use`, if
    /// there is one, and any other conversation the one named `default`; the variable
    /// `chat_template` can name another one. They are parsed when they are needed first.
    #[must_use]
    pub fn named(
        templates: impl IntoIterator<Item = (String, String)>,
        special_tokens: &Variables,
    ) -> Self {
        Self {
            templates: NamedTemplates::new(templates),
            special_tokens: special_tokens.clone(),
        }
    }

    /// Renders `messages`, with the opening of the next assistant turn behind them when
    /// `add_generation_prompt` is set. `variables` are further variables of the template, such
    /// as `tools` or `enable_thinking`.
    ///
    /// # Errors
    ///
    /// [`ChatError::Render`] when the template fails or refuses the conversation,
    /// [`ChatError::Syntax`] and [`ChatError::NoSuchTemplate`].
    pub fn render(
        &self,
        messages: &[Message],
        variables: &Variables,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let messages = prepared_messages(messages);
        on_large_stack(|| self.render_prepared(&messages, variables, add_generation_prompt))
    }

    /// Renders `messages` for training on all of the text.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`].
    pub fn render_whole(
        &self,
        messages: &[Message],
        variables: &Variables,
    ) -> Result<Rendered, ChatError> {
        let messages = prepared_messages(messages);
        on_large_stack(|| {
            let messages = with_arguments(self, messages, variables)?;
            let text = self.render_prepared(&messages, variables, false)?;
            let whole = 0..text.len();
            Ok(Rendered {
                text,
                learned: vec![whole],
            })
        })
    }

    /// Renders `messages` for training on the assistant's turns.
    ///
    /// Arguments of called functions may be objects or texts of JSON here: the template gets what it
    /// is made for.
    ///
    /// With `{% generation %}` tags in the template the text between them is learned. Without
    /// them it is all that the template adds for an assistant message behind the generation
    /// prompt, through the mark that ends the turn. `learns` tells for the index of an assistant
    /// message whether it is learned.
    ///
    /// `reach` tells how many bytes of the whole text matter. Turns that start behind them are left
    /// out without a look: each one costs renderings of messages around it.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`], and [`ChatError::Turn`] when the template's text for a turn
    /// depends on later messages in a way that hides where the turn is.
    pub fn render_assistant(
        &self,
        messages: &[Message],
        variables: &Variables,
        learns: &(dyn Fn(usize) -> bool + Sync),
        reach: &(dyn Fn(&str) -> usize + Sync),
    ) -> Result<Rendered, ChatError> {
        let messages = prepared_messages(messages);
        on_large_stack(|| {
            let messages = with_arguments(self, messages, variables)?;
            self.render_assistant_prepared(&messages, variables, learns, reach)
        })
    }

    /// Renders `prompt` and `completion` as one conversation in which all that follows the prompt
    /// is learned.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render_assistant`].
    pub fn render_completion(
        &self,
        prompt: &[Message],
        completion: &[Message],
        variables: &Variables,
    ) -> Result<Rendered, ChatError> {
        let messages = prepared_messages(&[prompt, completion].concat());
        on_large_stack(|| {
            let messages = with_arguments(self, messages, variables)?;
            let turns = Turns::render(self, &messages, variables)?;
            let span = turns.span_from(prompt.len())?;
            Ok(turns.into_rendered(vec![span]))
        })
    }

    /// Renders `prompt` with the opening of the next assistant turn behind it, and `prompt` with each of
    /// several continuations of it.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render_assistant`].
    pub fn render_answers(
        &self,
        prompt: &[Message],
        answers: &[Vec<Message>],
        variables: &Variables,
    ) -> Result<(String, Vec<String>), ChatError> {
        on_large_stack(|| {
            let text = |messages: Vec<Message>, opens| {
                let messages = with_arguments(self, messages, variables)?;
                self.render_prepared(&messages, variables, opens)
            };
            let whole = |answer: &Vec<Message>| {
                let messages = prepared_messages(&[prompt, answer].concat());
                text(messages, false)
            };
            let answers = answers
                .iter()
                .map(whole)
                .collect::<Result<_, ChatError>>()?;
            Ok((text(prepared_messages(prompt), true)?, answers))
        })
    }

    fn render_assistant_prepared(
        &self,
        messages: &[Message],
        variables: &Variables,
        learns: &(dyn Fn(usize) -> bool + Sync),
        reach: &(dyn Fn(&str) -> usize + Sync),
    ) -> Result<Rendered, ChatError> {
        let learned: Vec<bool> = messages
            .iter()
            .enumerate()
            .filter(|(_, message)| turns::is_assistant(message))
            .map(|(index, _)| learns(index))
            .collect();
        if self.templates.choose(variables)?.has_generation() {
            let mut rendered = self.render_generation(messages, variables)?;
            if learned.contains(&false) {
                rendered.learned = chosen(rendered.learned, &learned)?;
            }
            return Ok(rendered);
        }
        let turns = Turns::render(self, messages, variables)?;
        let learned = turns.assistant_spans(learns, reach(turns.text()))?;
        Ok(turns.into_rendered(learned))
    }

    /// Renders prepared messages.
    fn render_prepared(
        &self,
        messages: &[Message],
        variables: &Variables,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let template = self.templates.choose(variables)?;
        let all = self.variables(messages, variables, add_generation_prompt);
        template.render(&all, None).map_err(ChatError::Render)
    }

    /// Renders prepared messages; what stands between `{% generation %}` tags is learned.
    fn render_generation(
        &self,
        messages: &[Message],
        variables: &Variables,
    ) -> Result<Rendered, ChatError> {
        let template = self.templates.choose(variables)?;
        let all = self.variables(messages, variables, false);
        let text = template.render(&all, None).map_err(ChatError::Render)?;
        let marks = unused_marks(&text);
        let marked = template.render(&all, Some(marks));
        let rendered = take_marks(&marked.map_err(ChatError::Render)?, marks);
        // A template could measure or cut what it has marked.
        if rendered.text == text {
            Ok(rendered)
        } else {
            Err(ChatError::Marks)
        }
    }

    /// What a template sees.
    fn variables(
        &self,
        messages: &[Message],
        variables: &Variables,
        add_generation_prompt: bool,
    ) -> Variables {
        // transformers always defines `tools` and `documents`, as None where there are none.
        let mut all = Variables::new();
        all.insert("tools".to_owned(), Value::Null);
        all.insert("documents".to_owned(), Value::Null);
        all.extend(self.special_tokens.clone());
        all.extend(variables.clone());
        all.remove(named::CHOICE);
        let messages = messages.iter().cloned().map(Value::Object).collect();
        all.insert("messages".to_owned(), Value::Array(messages));
        all.insert(
            "add_generation_prompt".to_owned(),
            add_generation_prompt.into(),
        );
        all
    }
}

/// The marked ranges of the messages to learn, where the template marks each message once.
fn chosen(ranges: Vec<Range<usize>>, learned: &[bool]) -> Result<Vec<Range<usize>>, ChatError> {
    if ranges.len() != learned.len() {
        return Err(ChatError::MarkedTurns {
            marked: ranges.len(),
            messages: learned.len(),
        });
    }
    let ranges = ranges.into_iter().zip(learned);
    Ok(ranges
        .filter(|(_, learned)| **learned)
        .map(|(range, _)| range)
        .collect())
}
