//! Lines of the user: from a terminal, with a history, or from anything else.

use std::borrow::Cow;
use std::io::{IsTerminal, stdin, stdout};

use anyhow::Result;
use reedline::{FileBackedHistory, Prompt, PromptEditMode, PromptHistorySearch, Reedline, Signal};

/// Lines that the history keeps.
const KEPT: usize = 1000;

/// Where lines come from.
pub enum Input {
    /// A terminal, with an editor of lines.
    Terminal(Box<Reedline>),
    /// A file or a pipe.
    Lines,
}

impl Input {
    /// Standard input.
    pub fn new() -> Self {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            return Self::Lines;
        }
        let editor = Reedline::create();
        let history = super::history();
        let history = history.and_then(|path| FileBackedHistory::with_file(KEPT, path).ok());
        Self::Terminal(Box::new(match history {
            Some(history) => editor.with_history(Box::new(history)),
            // Without a place for it there is none of earlier conversations.
            None => editor,
        }))
    }

    /// Whether a user sits there.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line; `None` at the end.
    pub fn next(&mut self) -> Result<Option<String>> {
        match self {
            Self::Terminal(editor) => loop {
                return Ok(match editor.read_line(&Mark)? {
                    Signal::Success(line) => Some(line),
                    Signal::CtrlD => None,
                    // The line is given up.
                    _ => continue,
                });
            },
            Self::Lines => {
                let mut line = String::new();
                let read = stdin().read_line(&mut line)?;
                Ok((read > 0).then_some(line))
            }
        }
    }
}

/// What stands before a line.
struct Mark;

impl Prompt for Mark {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("… ")
    }

    fn render_prompt_history_search_indicator(&self, _: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Borrowed("search: ")
    }
}
