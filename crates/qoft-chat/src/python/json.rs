//! `json.dumps`, which is the `tojson` filter of transformers.

use std::fmt::Write as _;

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::arguments::Arguments;
use super::print::float;
use super::{elements, entries, is_dict, is_float, is_sequence};
use crate::budget::{DEEPEST, charge, too_much};
use crate::error::failure;

type Result<T> = std::result::Result<T, Error>;

/// How JSON is written.
struct Style {
    ensure_ascii: bool,
    sort_keys: bool,
    /// What one level of nesting is indented with; everything on one line without it.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

impl Style {
    /// Reads the arguments of the filter.
    fn from_arguments(args: &[Value]) -> Result<Self> {
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let args = Arguments::bind("tojson", args, names)?;
        let indent = match args.some(1) {
            None => None,
            Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
            Some(_) => {
                let width = args.size(1, 0)?;
                charge(width)?;
                Some(" ".repeat(width))
            }
        };
        let (item_separator, key_separator) = match args.some(2) {
            Some(pair) => match &elements(pair)?[..] {
                [item, key] => match (item.as_str(), key.as_str()) {
                    (Some(item), Some(key)) => (item.to_owned(), key.to_owned()),
                    _ => return Err(failure("tojson: separators must be texts")),
                },
                _ => return Err(failure("tojson: separators must be two texts")),
            },
            None => {
                let item = if indent.is_some() { "," } else { ", " };
                (item.to_owned(), ": ".to_owned())
            }
        };
        Ok(Self {
            ensure_ascii: args.flag(0),
            sort_keys: args.flag(3),
            indent,
            item_separator,
            key_separator,
        })
    }

    fn start_line(&self, out: &mut String, depth: usize) -> Result<()> {
        if let Some(indent) = &self.indent {
            charge(indent.len() * depth)?;
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
        Ok(())
    }
}

/// The `tojson` filter: JSON on one line with spaces, without escapes for HTML.
pub(crate) fn to_json(value: &Value, args: &[Value]) -> Result<String> {
    let mut out = String::new();
    write(&mut out, value, &Style::from_arguments(args)?, 0)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(too_much("it nests values too deeply"));
    }
    let before = out.len();
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if is_float(value) => {
            out.push_str(&float(value, ["NaN", "Infinity", "-Infinity"]));
        }
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::String => write_text(out, value.as_str().unwrap_or_default(), style),
        _ if is_sequence(value) => {
            let elements = elements(value)?;
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                separate(out, style, index, depth)?;
                write(out, element, style, depth + 1)?;
            }
            close(out, style, elements.is_empty(), depth, ']')?;
        }
        _ if is_dict(value) => {
            let mut entries = entries(value)?;
            if style.sort_keys {
                let mut order = Ok(());
                entries.sort_by(|(a, _), (b, _)| {
                    let ordering = super::compare::order("<", a, b);
                    ordering
                        .unwrap_or_else(|error| {
                            order = Err(error);
                            None
                        })
                        .unwrap_or(std::cmp::Ordering::Equal)
                });
                order?;
            }
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                separate(out, style, index, depth)?;
                write_key(out, key, style)?;
                charge(style.key_separator.len())?;
                out.push_str(&style.key_separator);
                write(out, value, style, depth + 1)?;
            }
            close(out, style, entries.is_empty(), depth, '}')?;
        }
        _ => {
            let found = super::type_name(value);
            return Err(failure(format!("'{found}' is not JSON serializable")));
        }
    }
    charge(out.len() - before)
}

fn separate(out: &mut String, style: &Style, index: usize, depth: usize) -> Result<()> {
    if index > 0 {
        charge(style.item_separator.len())?;
        out.push_str(&style.item_separator);
    }
    style.start_line(out, depth + 1)
}

fn close(
    out: &mut String,
    style: &Style,
    is_empty: bool,
    depth: usize,
    bracket: char,
) -> Result<()> {
    if !is_empty {
        style.start_line(out, depth)?;
    }
    out.push(bracket);
    Ok(())
}

/// Writes a key of an object; JSON knows only texts there.
fn write_key(out: &mut String, key: &Value, style: &Style) -> Result<()> {
    match key.as_str() {
        Some(text) => write_text(out, text, style),
        None if matches!(
            key.kind(),
            ValueKind::None | ValueKind::Bool | ValueKind::Number
        ) =>
        {
            out.push('"');
            write(out, key, style, DEEPEST)?;
            out.push('"');
        }
        None => return Err(failure("keys of JSON must be texts or numbers")),
    }
    Ok(())
}

fn write_text(out: &mut String, text: &str, style: &Style) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            c if c >= ' ' && !style.ensure_ascii => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}
