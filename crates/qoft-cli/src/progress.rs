//! Progress bars on stderr, which are a line from time to time where that is no terminal.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::print::{errln, is_quiet, moves};

/// From one line to the next in a file.
const PAUSE: Duration = Duration::from_secs(15);
/// Characters of a line in a file.
const WIDTH: u16 = 120;

/// A bar of `total` steps with a label.
pub fn bar(label: &str, total: usize) -> ProgressBar {
    bar_on(target(), label, total)
}

/// Has a bar show what work tells: how much of it is done, and how much there is.
pub fn follow(bar: &ProgressBar) -> impl Fn(usize, usize) + Sync + '_ {
    |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }
}

/// A bar for what writes lines of its own, which are enough where stderr is no terminal.
pub fn bar_beside_lines(label: &str, total: usize) -> ProgressBar {
    let target = match moves() {
        true => target(),
        false => ProgressDrawTarget::hidden(),
    };
    bar_on(target, label, total)
}

fn bar_on(target: ProgressDrawTarget, label: &str, total: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    let template = "{prefix} [{bar:30}] {pos}/{len} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(label.to_owned());
    bar
}

/// Something that turns while its end is not known.
pub fn spinner() -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, target());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        spinner.set_style(style);
    }
    spinner
}

/// Bars for files that come from the Hugging Face Hub or go there, one after another.
#[cfg(feature = "hub")]
pub struct Transfers(ProgressBar);

#[cfg(feature = "hub")]
impl Transfers {
    /// Without a file yet.
    pub fn new() -> Self {
        Self(ProgressBar::hidden())
    }
}

#[cfg(feature = "hub")]
impl Drop for Transfers {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(feature = "hub")]
impl qoft_hub::Transfer for Transfers {
    fn file(&mut self, name: &str, bytes: u64) {
        self.0.finish_and_clear();
        self.0 = ProgressBar::with_draw_target(Some(bytes), target());
        let template = "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style.progress_chars("=> "));
        }
        self.0.set_prefix(name.to_owned());
    }

    fn bytes(&mut self, more: u64) {
        self.0.inc(more);
    }

    fn note(&mut self, text: &str) {
        self.0.suspend(|| errln!("{text}"));
    }
}

fn target() -> ProgressDrawTarget {
    if is_quiet() {
        return ProgressDrawTarget::hidden();
    }
    match moves() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::term_like_with_hz(Box::new(Lines::new()), 1),
    }
}

/// A file or a pipe that gets what a bar shows as a line now and then.
#[derive(Debug)]
struct Lines {
    /// What the bar shows, and when the last line was written.
    state: Mutex<(String, Instant)>,
}

impl Lines {
    fn new() -> Self {
        Self {
            state: Mutex::new((String::new(), Instant::now())),
        }
    }
}

impl TermLike for Lines {
    fn width(&self) -> u16 {
        WIDTH
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (text, last) = &mut *state;
        if !text.trim().is_empty() && last.elapsed() >= PAUSE {
            errln!("{}", text.trim_end());
            *last = Instant::now();
        }
        text.clear();
        Ok(())
    }
}

/// A number with commas between groups of three digits.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A perplexity with some decimal places, or with an exponent where it is large: it may have 309 digits.
pub fn perplexity(value: f64, places: usize) -> String {
    match value < 1e6 {
        true => format!("{value:.places$}"),
        false => format!("{value:.places$e}"),
    }
}

/// Bytes in the largest fitting unit.
pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_perplexities_have_an_exponent() {
        assert_eq!(perplexity(31.256, 2), "31.26");
        assert_eq!(perplexity(f64::MAX, 2), "1.80e308");
    }
}
