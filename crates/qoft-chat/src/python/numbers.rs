//! Numbers from other values, as Python's `int` and `float` make them.

use minijinja::Error;
use minijinja::value::Value;

use super::number;
use super::unicode::is_space;
use crate::error::failure;

/// `int(number)`.
pub(crate) fn truncate(number: f64) -> Result<i128, Error> {
    if !number.is_finite() {
        return Err(failure(
            "cannot convert a float that is not finite to an integer",
        ));
    }
    if number.abs() >= 1e38 {
        return Err(failure("a float is too large for an integer"));
    }
    Ok(number as i128)
}

/// `int(text, base)`.
pub(crate) fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim_matches(is_space);
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2)];
    let lower = digits.to_ascii_lowercase();
    let prefixed = prefixes
        .iter()
        .find(|(prefix, radix)| (base == *radix || base == 0) && lower.starts_with(prefix));
    let (digits, base, had_prefix) = match prefixed {
        Some((_, radix)) => (&lower[2..], *radix, true),
        None => (&*lower, if base == 0 { 10 } else { base }, false),
    };
    if !(2..=36).contains(&base) || !single_underscores(digits, had_prefix) {
        return None;
    }
    let digits = digits.replace('_', "");
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let size = i128::from_str_radix(&digits, base).ok()?;
    Some(if is_negative { -size } else { size })
}

/// `float(text)`.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    if !single_underscores(text, false) {
        return None;
    }
    // Rust reads the same words for the infinities and for what is not a number.
    text.replace('_', "").parse().ok()
}

/// Whether underscores stand between digits only.
fn single_underscores(text: &str, may_start: bool) -> bool {
    let starts = text.starts_with('_') && !may_start;
    !starts && !text.ends_with('_') && !text.contains("__")
}

/// `float(value)`.
pub(crate) fn to_float(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => parse_float(text),
        None => number(value),
    }
}

/// Half to even, at `decimals` digits behind the point, as Python's `round`.
pub(crate) fn round(number: f64, decimals: i128) -> f64 {
    if !number.is_finite() || decimals > 322 {
        return number;
    }
    if decimals < 0 {
        if decimals < -308 {
            return 0.0;
        }
        let scale = 10_f64.powi(-(decimals as i32));
        return (number / scale).round_ties_even() * scale;
    }
    // The decimal text is exact, so that it rounds as the number itself.
    let decimals = usize::try_from(decimals).unwrap_or(0);
    format!("{number:.decimals$}").parse().unwrap_or(number)
}
