//! Values as Python writes them: `str()` for `{{ … }}`, and `repr()` within lists and dicts.

use std::fmt::Write as _;

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::iterators::ViewKind;
use super::{
    elements, entries, is_dict, is_float, is_sequence, is_tuple, type_name, unicode, view,
};
use crate::budget::{DEEPEST, charge, too_much};
use crate::error::failure;

/// Python's `str(value)`; an undefined value prints as nothing.
pub(crate) fn str(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            charge(text.len())?;
            Ok(text.to_owned())
        }
        ValueKind::Undefined => Ok(String::new()),
        _ => repr(value),
    }
}

/// Python's `repr(value)`.
pub(crate) fn repr(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_repr(&mut out, value, 0)?;
    Ok(out)
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(too_much("it nests values too deeply"));
    }
    let before = out.len();
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String if value.is_safe() => {
            return Err(failure(
                "text that is marked as safe is written within a list",
            ));
        }
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if is_float(value) => out.push_str(&float(value, ["nan", "inf", "-inf"])),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::Seq if view(value).is_some() => {
            let name = match view(value) {
                Some(ViewKind::Items) => "dict_items",
                Some(ViewKind::Keys) => "dict_keys",
                Some(ViewKind::Values) => "dict_values",
                _ => return Err(failure("a range is written; list makes a list of it")),
            };
            out.push_str(name);
            out.push('(');
            write_repr(out, &Value::from(elements(value)?), depth + 1)?;
            out.push(')');
        }
        _ if is_sequence(value) => {
            let is_tuple = is_tuple(value);
            let elements = elements(value)?;
            out.push(if is_tuple { '(' } else { '[' });
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(out, element, depth + 1)?;
            }
            if is_tuple && elements.len() == 1 {
                out.push(',');
            }
            out.push(if is_tuple { ')' } else { ']' });
        }
        _ if is_dict(value) => {
            out.push('{');
            for (index, (key, value)) in entries(value)?.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(out, key, depth + 1)?;
                out.push_str(": ");
                write_repr(out, value, depth + 1)?;
            }
            out.push('}');
        }
        _ => return Err(failure(format!("a {} is written", type_name(value)))),
    }
    charge(out.len() - before)
}

/// A text in quotes. Python takes `"` only where that saves escaping a `'`.
fn write_quoted(out: &mut String, text: &str) {
    let is_simple = text.contains('\'') && !text.contains('"');
    let quote = if is_simple { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if unicode::is_printable(c) => out.push(c),
            c => {
                // Writing to a string does not fail.
                let _ = match u32::from(c) {
                    code @ 0..=0xff => write!(out, "\\x{code:02x}"),
                    code @ 0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// A float with the fewest digits that give the same number; `special` are the words for
/// not-a-number and the infinities.
pub(crate) fn float(value: &Value, special: [&str; 3]) -> String {
    let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    if number.is_nan() {
        return special[0].to_owned();
    }
    if number.is_infinite() {
        return special[if number > 0.0 { 1 } else { 2 }].to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
