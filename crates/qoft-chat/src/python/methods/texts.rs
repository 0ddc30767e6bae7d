//! Methods of texts.

use minijinja::value::Value;

use super::{Result, unsupported};
use crate::budget::charge;
use crate::error::failure;
use crate::python::arguments::Arguments;
use crate::python::operators::plain_text;
use crate::python::text::{self, strip};
use crate::python::tuple::tuple;
use crate::python::{elements, format, is_tuple, type_name};

/// `value.name(args)`.
pub(super) fn call(value: &str, name: &str, args: &[Value]) -> Result {
    let text = match name {
        "format" => format::braces(value, args)?,
        "join" => join(value, args)?,
        "replace" => {
            let args = Arguments::bind("replace", args, ["old", "new", "count"])?;
            let (old, new) = (args.required_text(0)?, args.required_text(1)?);
            text::replace(value, old, new, args.int(2)?.unwrap_or(-1))?
        }
        "split" | "rsplit" | "splitlines" | "partition" | "rpartition" => {
            return split(value, name, args);
        }
        "count" | "find" | "rfind" | "index" | "rindex" => return search(value, name, args),
        "startswith" | "endswith" => return has_affix(value, name, args),
        "strip" | "lstrip" | "rstrip" => {
            let args = Arguments::bind("strip", args, ["chars"])?;
            strip(value, name, args.text(0)?).to_owned()
        }
        "removeprefix" | "removesuffix" => {
            let args = Arguments::bind("removeprefix", args, ["affix"])?;
            let affix = args.required_text(0)?;
            let kept = if name == "removeprefix" {
                value.strip_prefix(affix)
            } else {
                value.strip_suffix(affix)
            };
            kept.unwrap_or(value).to_owned()
        }
        "center" | "ljust" | "rjust" | "zfill" => justify(value, name, args)?,
        "capitalize" | "casefold" | "lower" | "upper" | "swapcase" | "title" => {
            Arguments::bind("this method", args, [])?;
            text::in_case(value, name)
        }
        "encode" | "expandtabs" | "format_map" | "maketrans" | "translate" => {
            return Err(unsupported(name));
        }
        _ => {
            Arguments::bind("this method", args, [])?;
            return Ok(Value::from(text::has_property(value, name)));
        }
    };
    Ok(Value::from(text))
}

fn join(separator: &str, args: &[Value]) -> Result<String> {
    let args = Arguments::bind("join", args, ["iterable"])?;
    let mut joined = String::new();
    for (index, element) in elements(args.required(0)?)?.iter().enumerate() {
        let Some(text) = plain_text(element)? else {
            let found = type_name(element);
            return Err(failure(format!(
                "sequence item {index}: expected str instance, {found} found"
            )));
        };
        if index > 0 {
            charge(separator.len())?;
            joined.push_str(separator);
        }
        charge(text.len())?;
        joined.push_str(text);
    }
    Ok(joined)
}

fn justify(value: &str, name: &str, args: &[Value]) -> Result<String> {
    let args = Arguments::bind("this method", args, ["width", "fillchar"])?;
    args.required(0)?;
    let mut fill = args.text(1)?.unwrap_or(" ").chars();
    let (Some(fill), None) = (fill.next(), fill.next()) else {
        return Err(failure(
            "the fill character must be exactly one character long",
        ));
    };
    let width = args.size(0, 0)?;
    if name == "center" {
        return text::centered(value, width, fill);
    }
    charge(value.len().saturating_add(width.saturating_mul(4)))?;
    let missing = width.saturating_sub(value.chars().count());
    let filling = |c: char| std::iter::repeat_n(c, missing).collect::<String>();
    Ok(match name {
        "ljust" => format!("{value}{}", filling(fill)),
        "rjust" => format!("{}{value}", filling(fill)),
        _ => {
            let (sign, digits) = value.split_at(usize::from(value.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", filling('0'))
        }
    })
}

fn split(value: &str, name: &str, args: &[Value]) -> Result {
    let parts = match name {
        "splitlines" => {
            let args = Arguments::bind("splitlines", args, ["keepends"])?;
            text::lines(value, args.flag(0))
        }
        "partition" | "rpartition" => {
            let args = Arguments::bind("partition", args, ["sep"])?;
            let separator = separator(args.required_text(0)?)?;
            let is_left = name == "partition";
            let at = if is_left {
                value.find(separator)
            } else {
                value.rfind(separator)
            };
            let parts = match at {
                Some(at) => [&value[..at], separator, &value[at + separator.len()..]],
                None if is_left => [value, "", ""],
                None => ["", "", value],
            };
            return Ok(tuple(parts.map(Value::from)));
        }
        _ => {
            let args = Arguments::bind("split", args, ["sep", "maxsplit"])?;
            let count = usize::try_from(args.int(1)?.unwrap_or(-1)).unwrap_or(usize::MAX);
            let is_right = name == "rsplit";
            match args.text(0)? {
                Some(between) => text::split_at(value, separator(between)?, count, is_right),
                None if is_right => text::split_right_at_space(value, count),
                None => text::split_at_space(value, count),
            }
        }
    };
    charge(parts.len().saturating_mul(32))?;
    Ok(parts
        .into_iter()
        .map(Value::from)
        .collect::<Vec<_>>()
        .into())
}

fn separator(text: &str) -> Result<&str> {
    if text.is_empty() {
        return Err(failure("empty separator"));
    }
    Ok(text)
}

/// The characters that the arguments `start` and `end` leave of a text, and the place of the first;
/// nothing where the bounds leave no place.
fn window<'t>(value: &'t str, args: &Arguments<3>) -> Result<Option<(&'t str, usize)>> {
    let length = value.chars().count();
    let place = |bound: Option<i128>, default: usize| match bound {
        None => default,
        Some(bound) if bound < 0 => {
            usize::try_from(bound.saturating_add(length as i128).max(0)).unwrap_or(0)
        }
        Some(bound) => usize::try_from(bound).unwrap_or(usize::MAX),
    };
    let start = place(args.int(1)?, 0);
    let end = place(args.int(2)?, length).min(length);
    if start > end {
        return Ok(None);
    }
    let byte = |place: usize| {
        let at = value.char_indices().nth(place);
        at.map_or(value.len(), |(at, _)| at)
    };
    Ok(Some((&value[byte(start)..byte(end)], start)))
}

fn search(value: &str, name: &str, args: &[Value]) -> Result {
    let args = Arguments::bind("this method", args, ["sub", "start", "end"])?;
    let part = args.required_text(0)?;
    let window = window(value, &args)?;
    if name == "count" {
        let count = window.map_or(0, |(window, _)| match part {
            "" => window.chars().count() + 1,
            part => window.matches(part).count(),
        });
        return Ok(Value::from(count));
    }
    let found = window.and_then(|(window, start)| {
        let at = if name.starts_with('r') {
            window.rfind(part)
        } else {
            window.find(part)
        };
        at.map(|at| start + window[..at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::from(at)),
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(failure("substring not found")),
    }
}

fn has_affix(value: &str, name: &str, args: &[Value]) -> Result {
    let args = Arguments::bind("this method", args, ["affix", "start", "end"])?;
    let window = window(value, &args)?;
    let affix = args.required(0)?;
    let affixes = if is_tuple(affix) {
        elements(affix)?
    } else {
        vec![affix.clone()]
    };
    let mut fits = false;
    for affix in &affixes {
        let affix = affix.as_str().ok_or_else(|| {
            let found = type_name(affix);
            failure(format!(
                "{name} first arg must be str or a tuple of str, not {found}"
            ))
        })?;
        charge(affix.len())?;
        fits |= window.is_some_and(|(window, _)| match name {
            "startswith" => window.starts_with(affix),
            _ => window.ends_with(affix),
        });
    }
    Ok(Value::from(fits))
}
