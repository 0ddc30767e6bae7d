//! Progress bars on stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::print::moves;

/// A bar of `total` steps with a label; silent where stderr is no terminal.
pub fn bar(label: &str, total: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total as u64), target());
    let template = "{prefix} [{bar:30}] {pos}/{len} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(label.to_owned());
    bar
}

/// Something that turns while its end is not known.
pub fn spinner() -> ProgressBar {
    ProgressBar::with_draw_target(None, target())
}

fn target() -> ProgressDrawTarget {
    match moves() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
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
