//! Why a conversation could not be rendered.

use std::fmt;

use minijinja::{Error, ErrorKind};

/// What is wrong with a template, or what it says is wrong with a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    message: String,
    line: Option<u32>,
}

impl TemplateError {
    pub(crate) fn syntax(error: &Error) -> Self {
        Self::new(error)
    }

    pub(crate) fn render(error: &Error) -> Self {
        let mut found = Self::new(error);
        if error.kind() == ErrorKind::OutOfFuel {
            let why = error.detail().unwrap_or("it runs too long");
            found.message = format!("the template was stopped: {why}");
        }
        found
    }

    pub(crate) fn unsupported(what: &str, line: u32) -> Self {
        Self {
            message: format!("{what} is not supported in a chat template"),
            line: (line > 0).then_some(line),
        }
    }

    pub(crate) fn engine(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            line: None,
        }
    }

    pub(crate) fn too_long(found: usize, longest: usize) -> Self {
        Self {
            message: format!("the template has {found} bytes, but {longest} are the most"),
            line: None,
        }
    }

    fn new(error: &Error) -> Self {
        let message = match error.detail() {
            Some(detail) => detail.to_owned(),
            None => error.kind().to_string(),
        };
        Self {
            message,
            line: error.line().and_then(|line| line.try_into().ok()),
        }
    }

    /// What is wrong, without the line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The line of the template, from 1.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        self.line
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.line {
            Some(line) => write!(f, " (line {line} of the template)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TemplateError {}

/// Why a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is not valid Jinja.
    #[error("the chat template {name}does not parse: {source}", name = quoted(name))]
    Syntax {
        /// The name of the template, if it has one.
        name: Option<String>,
        /// What is wrong with it.
        source: TemplateError,
    },
    /// The template failed or refused the conversation with `raise_exception`.
    #[error("the chat template fails on this conversation: {0}")]
    Render(#[from] TemplateError),
    /// The model has several templates, but not the one that is asked for.
    #[error(
        "the model has no chat template named '{wanted}'; chat_template_kwargs can name one of \
         its own: {}",
        known.join(", ")
    )]
    NoSuchTemplate {
        /// The name that is missing.
        wanted: String,
        /// The names that are there.
        known: Vec<String>,
    },
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
    /// The template reads what it marks with `{% generation %}`.
    #[error(
        "the chat template changes the text between its {{% generation %}} tags behind them, so \
         that the part to learn cannot be told"
    )]
    Marks,
    /// Some assistant messages are not to be learned, but it is not clear which mark is theirs.
    #[error(
        "some of the assistant's messages are not to be learned, but the chat template puts \
         {marked} {{% generation %}} marks around {messages} messages of the assistant"
    )]
    MarkedTurns {
        /// The number of marks.
        marked: usize,
        /// The number of messages by the assistant.
        messages: usize,
    },
}

fn quoted(name: &Option<String>) -> String {
    name.as_ref()
        .map_or_else(String::new, |name| format!("'{name}' "))
}

/// The kind of errors that templates cause themselves.
pub(crate) fn failure(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}
