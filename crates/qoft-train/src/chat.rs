//! Chat templates: conversations as text, rendered as transformers' `apply_chat_template` does.
//!
//! A template is a Jinja program that comes with the model. Here it runs in `minijinja`, with the
//! settings and helper functions that transformers gives to Jinja and with Python's way to print
//! values.

mod generation;
mod methods;
mod python;
mod turns;

use std::fmt::Write as _;
use std::ops::Range;

use minijinja::value::{Kwargs, ValueKind, merge_maps};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde_json::Map;

use turns::Turns;

/// The name of the one template in the environment; it shows up in messages about the template.
const TEMPLATE: &str = "chat template";

/// One message of a conversation: `role`, `content` and whatever else the template reads.
pub type Message = Map<String, serde_json::Value>;

/// Variables of a template by name.
pub type Variables = Map<String, serde_json::Value>;

/// Why a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template is not valid Jinja.
    #[error("the chat template does not parse: {0}")]
    Syntax(String),
    /// The template failed or refused the conversation with `raise_exception`.
    #[error("the chat template fails on this conversation: {0}")]
    Render(String),
    /// The template writes a turn differently depending on what follows, so that the part of the
    /// text to learn cannot be told.
    #[error(
        "cannot tell which part of the rendered conversation belongs to message {number}; \
         a chat template with {{% generation %}} tags around the assistant's text settles it"
    )]
    Turn {
        /// The number of the message, from 1.
        number: usize,
    },
    /// A message holds a character that marks the assistant's text while rendering.
    #[error("a message contains the noncharacter U+{0:04X}, which is reserved here")]
    ReservedCharacter(u32),
}

impl ChatError {
    fn render(error: &Error) -> Self {
        Self::Render(describe(error))
    }
}

/// A rendered conversation with the parts to learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text.
    pub text: String,
    /// The byte ranges of `text` to learn, in order.
    pub learned: Vec<Range<usize>>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Value,
    has_generation_tags: bool,
}

impl ChatTemplate {
    /// Compiles the Jinja text `source`.
    ///
    /// The entries of `special_tokens` (`bos_token`, `eos_token`, …) become variables of the
    /// template.
    ///
    /// # Errors
    ///
    /// [`ChatError::Syntax`] when the template does not parse.
    pub fn new(source: &str, special_tokens: &Variables) -> Result<Self, ChatError> {
        let (source, has_generation_tags) = generation::replace_tags(source);
        let mut environment = environment();
        environment
            .add_template_owned(TEMPLATE, source)
            .map_err(|error| ChatError::Syntax(describe(&error)))?;
        Ok(Self {
            environment,
            special_tokens: Value::from_serialize(special_tokens),
            has_generation_tags,
        })
    }

    /// Renders `messages`, with the opening of the next assistant turn behind them when
    /// `add_generation_prompt` is set. `variables` are further variables of the template, such
    /// as `tools` or `enable_thinking`.
    ///
    /// # Errors
    ///
    /// [`ChatError::Render`] when the template fails or refuses the conversation, and
    /// [`ChatError::ReservedCharacter`].
    pub fn render(
        &self,
        messages: &[Message],
        variables: &Variables,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        self.render_plain(
            &self.values(messages)?,
            &Value::from_serialize(variables),
            add_generation_prompt,
        )
    }

    /// Renders `messages` for training on the assistant's turns.
    ///
    /// With `{% generation %}` tags in the template the text between them is learned. Without
    /// them it is all that the template adds for an assistant message behind the generation
    /// prompt, through the mark that ends the turn.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`], and [`ChatError::Turn`] when the template's text for a turn
    /// depends on later messages in a way that hides where the turn is.
    pub fn render_assistant(
        &self,
        messages: &[Message],
        variables: &Variables,
    ) -> Result<Rendered, ChatError> {
        if self.has_generation_tags {
            let variables = Value::from_serialize(variables);
            let marked = self.render_marked(&self.values(messages)?, &variables, false)?;
            return Ok(generation::take_marks(&marked));
        }
        let turns = Turns::render(self, messages, variables)?;
        let learned = turns.assistant_spans()?;
        Ok(turns.into_rendered(learned))
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
        let messages = [prompt, completion].concat();
        let turns = Turns::render(self, &messages, variables)?;
        let span = turns.span_from(prompt.len())?;
        Ok(turns.into_rendered(vec![span]))
    }

    /// The messages as values of the template.
    fn values(&self, messages: &[Message]) -> Result<Vec<Value>, ChatError> {
        if self.has_generation_tags {
            generation::check_free_of_marks(messages)?;
        }
        Ok(messages.iter().map(Value::from_serialize).collect())
    }

    /// Renders `messages` without marks in the text.
    fn render_plain(
        &self,
        messages: &[Value],
        variables: &Value,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let text = self.render_marked(messages, variables, add_generation_prompt)?;
        Ok(if self.has_generation_tags {
            generation::take_marks(&text).text
        } else {
            text
        })
    }

    /// Renders `messages` with the marks of [`generation`] still in the text.
    fn render_marked(
        &self,
        messages: &[Value],
        variables: &Value,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        // transformers always defines `tools` and `documents`, as None where there are none.
        let always = context! { tools => (), documents => () };
        let conversation = context! { messages, add_generation_prompt };
        let variables = merge_maps([
            always,
            self.special_tokens.clone(),
            variables.clone(),
            conversation,
        ]);
        self.environment
            .get_template(TEMPLATE)
            .and_then(|template| template.render(variables))
            .map_err(|error| ChatError::render(&error))
    }
}

/// What `error` says, and the line of the template where it arose.
fn describe(error: &Error) -> String {
    let mut text = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    if let Some(line) = error.line() {
        let _ = write!(text, " (line {line} of the template)");
    }
    text
}

/// The Jinja environment of transformers' `_compile_jinja_template`.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_formatter(python::print);
    environment.set_unknown_method_callback(methods::call);
    environment.add_filter(generation::FILTER, generation::mark);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: &Value| python::str(value));
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    // In Python a string and a dictionary are sequences too, and None cannot be iterated.
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::String | ValueKind::Seq | ValueKind::Map
        )
    });
    environment.add_test("iterable", |value: &Value| {
        !value.is_none() && value.try_iter().is_ok()
    });
    environment
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// The local time in the format of C's `strftime`.
fn strftime_now(format: &str) -> Result<String, Error> {
    strftime(&chrono::Local::now().naive_local(), format)
}

fn strftime(time: &chrono::NaiveDateTime, format: &str) -> Result<String, Error> {
    let mut text = String::new();
    write!(text, "{}", time.format(format)).map_err(|_| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now does not know the format {format:?}"),
        )
    })?;
    Ok(text)
}

/// The `tojson` filter with the keyword arguments that transformers gives it.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let style = python::JsonStyle::from_kwargs(&options)?;
    options.assert_all_used()?;
    python::json_dumps(value, &style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strftime_formats_as_python_does_and_reports_unknown_formats() {
        let time = chrono::NaiveDate::from_ymd_opt(2025, 3, 4)
            .and_then(|day| day.and_hms_opt(9, 5, 6))
            .unwrap();
        assert_eq!(
            strftime(&time, "%d %b %Y, %H:%M").unwrap(),
            "04 Mar 2025, 09:05"
        );
        assert!(strftime(&time, "%Q").is_err());
    }
}
