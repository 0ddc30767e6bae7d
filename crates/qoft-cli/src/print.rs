//! Lines on standard output and standard error, either of which may be full, closed, or a pipe that
//! nobody reads to its end.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of this process among those that run together.
static RANK: AtomicUsize = AtomicUsize::new(0);

/// Says which of several processes this is: only the first one says more than errors.
pub fn speak_as(rank: usize) {
    RANK.store(rank, Ordering::Relaxed);
}

/// Whether this process says nothing but errors, since another one says the rest.
pub fn is_quiet() -> bool {
    RANK.load(Ordering::Relaxed) > 0
}

/// As `println!`, but the process ends quietly when the reader has gone, as in `qoft … | head`.
macro_rules! outln {
    () => {
        $crate::print::line(format_args!(""))
    };
    ($($arg:tt)*) => {
        $crate::print::line(format_args!($($arg)*))
    };
}
pub(crate) use outln;

/// As `eprintln!`, but without a panic where nothing can be written: what is said there matters less
/// than what is being done.
macro_rules! errln {
    () => {
        $crate::print::note(format_args!(""))
    };
    ($($arg:tt)*) => {
        $crate::print::note(format_args!($($arg)*))
    };
}
pub(crate) use errln;

/// As [`errln`], for a warning.
macro_rules! warnln {
    ($($arg:tt)*) => {
        $crate::print::message($crate::print::Kind::Warning, format_args!($($arg)*))
    };
}
pub(crate) use warnln;

/// Writes a line to standard output.
pub fn line(text: Arguments) {
    write_out(&format!("{}\n", visible(&text.to_string())));
}

/// Writes text of a model to standard output as it comes. Only terminals are spared its control
/// characters.
pub fn text(text: &str) {
    if std::io::stdout().is_terminal() {
        write_out(&visible(text));
    } else {
        write_out(text);
    }
}

/// Writes a line whose parts are marked or not: in colors where standard output shows some, and otherwise
/// with brackets around what is marked.
pub fn painted(parts: &[(bool, String)]) {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let marks = match std::io::stdout().is_terminal() && !no_color && !is_dumb {
        true => [["\u{1b}[2m", "\u{1b}[0m"], ["\u{1b}[1;32m", "\u{1b}[0m"]],
        false => [["", ""], ["⟦", "⟧"]],
    };
    let mut line = String::new();
    for (is_marked, text) in parts {
        let [before, behind] = marks[usize::from(*is_marked)];
        line.push_str(before);
        line.push_str(&visible(text));
        line.push_str(behind);
    }
    line.push('\n');
    write_out(&line);
}

fn write_out(text: &str) {
    if is_quiet() {
        return;
    }
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = written {
        let gone = error.kind() == ErrorKind::BrokenPipe;
        if !gone {
            message(Kind::Error, format_args!("standard output: {error}"));
        }
        crate::exit::end(if gone { 0 } else { 1 });
    }
}

/// Writes a line to standard error, if it can be written.
pub fn note(text: Arguments) {
    if is_quiet() {
        return;
    }
    write_err(&format!("{}\n", visible(&text.to_string())));
}

/// As [`note`], with a word before it.
pub fn message(kind: Kind, text: Arguments) {
    let (word, color) = match kind {
        Kind::Error => ("error", "\u{1b}[1;31m"),
        Kind::Warning => ("warning", "\u{1b}[1;33m"),
        Kind::Other(word) => (word, ""),
    };
    let (before, after) = match colors() && !color.is_empty() {
        true => (color, "\u{1b}[0m"),
        false => ("", ""),
    };
    let who = match (is_quiet(), kind) {
        (false, _) => String::new(),
        (true, Kind::Error) => format!("rank {}: ", RANK.load(Ordering::Relaxed)),
        (true, _) => return,
    };
    let text = text.to_string();
    write_err(&format!("{before}{word}:{after} {who}{}\n", visible(&text)));
}

/// The word before a message.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `error`.
    Error,
    /// `warning`.
    Warning,
    /// Another one.
    Other(&'static str),
}

/// One write, so that lines of several processes do not mix.
fn write_err(line: &str) {
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Whether standard error is a terminal that shows more than text, as `NO_COLOR` and `TERM` say.
fn colors() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && moves()
}

/// Whether standard error is a terminal that can write over what it shows.
pub fn moves() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Text with its control characters written out, as names in hostile files may have them, and those
/// that turn the direction of text. It is the same text if it is JSON.
pub fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match hidden(c) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(visible("a\u{1b}]0;b\u{7}\n\tc"), "a\\u001b]0;b\\u0007\n\tc");
        assert_eq!(
            visible("\u{9b}31m\r\u{202e}\u{7f}"),
            "\\u009b31m\\u000d\\u202e\\u007f"
        );
        assert_eq!(visible("Käse 日本 👍\u{200d}"), "Käse 日本 👍\u{200d}");
        let json = serde_json::to_string("\u{9b}\u{7f}").unwrap();
        let read: String = serde_json::from_str(&visible(&json)).unwrap();
        assert_eq!(read, "\u{9b}\u{7f}");
    }
}
