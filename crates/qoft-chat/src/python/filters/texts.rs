//! Filters of texts.

use minijinja::State;
use minijinja::value::Value;

use super::Result;
use crate::budget::charge;
use crate::error::failure;
use crate::python::arguments::Arguments;
use crate::python::format::percent_filter;
use crate::python::operators::plain_text;
use crate::python::print::str;
use crate::python::text::{centered, in_case, lines, replace, strip};
use crate::python::type_name;
use crate::python::unicode::{is_space, is_word};

pub(super) const NAMES: [&str; 13] = [
    "capitalize",
    "center",
    "format",
    "indent",
    "lower",
    "replace",
    "safe",
    "striptags",
    "title",
    "trim",
    "truncate",
    "upper",
    "wordcount",
];

pub(super) fn apply(
    _: &State<'_, '_>,
    name: &'static str,
    value: &Value,
    args: &[Value],
) -> Result {
    let text = match name {
        "upper" | "lower" | "capitalize" => {
            Arguments::bind(name, args, [])?;
            in_case(&str(value)?, name)
        }
        "title" => {
            Arguments::bind(name, args, [])?;
            title(&str(value)?)
        }
        "trim" => {
            let args = Arguments::bind(name, args, ["chars"])?;
            strip(&str(value)?, "strip", args.text(0)?).to_owned()
        }
        "replace" => {
            let args = Arguments::bind(name, args, ["old", "new", "count"])?;
            let (old, new) = (str(args.required(0)?)?, str(args.required(1)?)?);
            replace(&str(value)?, &old, &new, args.int(2)?.unwrap_or(-1))?
        }
        "center" => {
            let args = Arguments::bind(name, args, ["width"])?;
            centered(&str(value)?, args.size(0, 80)?, ' ')?
        }
        "format" => {
            plain_text(value)?;
            percent_filter(&str(value)?, args)?
        }
        "indent" => {
            let args = Arguments::bind(name, args, ["width", "first", "blank"])?;
            indent(text_of(value, name)?, &args)?
        }
        "truncate" if value.is_undefined() => return Ok(value.clone()),
        "truncate" => {
            let args = Arguments::bind(name, args, ["length", "killwords", "end", "leeway"])?;
            truncate(text_of(value, name)?, &args)?
        }
        // Without autoescaping this is the text itself, unless it is added to other text.
        "safe" => {
            Arguments::bind(name, args, [])?;
            return Ok(Value::from_safe_string(str(value)?));
        }
        "striptags" => {
            Arguments::bind(name, args, [])?;
            strip_tags(&str(value)?)?
        }
        _ => {
            Arguments::bind(name, args, [])?;
            let text = str(value)?;
            let words = text.split(|c| !is_word(c));
            return Ok(Value::from(words.filter(|word| !word.is_empty()).count()));
        }
    };
    Ok(Value::from(text))
}

fn text_of<'v>(value: &'v Value, filter: &str) -> Result<&'v str> {
    value.as_str().ok_or_else(|| {
        failure(format!(
            "{filter} needs a text, found '{}'",
            type_name(value)
        ))
    })
}

/// Words start behind white space and opening brackets.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut starts_word = true;
    for c in text.chars() {
        if c == '-' || is_space(c) || matches!(c, '(' | '{' | '[' | '<') {
            titled.push(c);
            starts_word = true;
        } else if starts_word {
            titled.extend(c.to_uppercase());
            starts_word = false;
        } else {
            titled.extend(c.to_lowercase());
        }
    }
    titled
}

fn indent(text: &str, args: &Arguments<3>) -> Result<String> {
    let indention = match args.get(0).and_then(Value::as_str) {
        Some(indention) => indention.to_owned(),
        None => {
            let width = args.size(0, 4)?;
            charge(width)?;
            " ".repeat(width)
        }
    };
    let with_end = format!("{text}\n");
    let lines = lines(&with_end, false);
    charge(
        indention
            .len()
            .saturating_mul(lines.len())
            .saturating_add(text.len()),
    )?;
    let mut indented = String::new();
    for (index, line) in lines.into_iter().enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        let is_indented = if index == 0 {
            args.flag(1)
        } else {
            args.flag(2) || !line.is_empty()
        };
        if is_indented {
            indented.push_str(&indention);
        }
        indented.push_str(line);
    }
    Ok(indented)
}

fn truncate(text: &str, args: &Arguments<4>) -> Result<String> {
    let length = args.size(0, 255)?;
    let end = args.text(2)?.unwrap_or("...");
    let end_length = end.chars().count();
    if length < end_length {
        return Err(failure(format!(
            "expected length >= {end_length}, got {length}"
        )));
    }
    if text.chars().count() <= length.saturating_add(args.size(3, 5)?) {
        return Ok(text.to_owned());
    }
    let mut kept: String = text.chars().take(length - end_length).collect();
    let word_end = kept.rfind(' ').filter(|_| !args.flag(1));
    kept.truncate(word_end.unwrap_or(kept.len()));
    kept.push_str(end);
    Ok(kept)
}

/// The text without tags of HTML, with single spaces between its words.
fn strip_tags(text: &str) -> Result<String> {
    if text.contains('&') || text.contains("<!--") {
        return Err(failure(
            "striptags does not know entities and comments here",
        ));
    }
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let Some(end) = rest[start..].find('>') else {
            break;
        };
        kept.push_str(&rest[..start]);
        rest = &rest[start + end + 1..];
    }
    kept.push_str(rest);
    let words = kept.split(is_space).filter(|word| !word.is_empty());
    Ok(words.collect::<Vec<_>>().join(" "))
}
