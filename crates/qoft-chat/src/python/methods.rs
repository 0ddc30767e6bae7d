//! Methods of texts, lists, tuples and dicts.

use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{Error, State};

use super::arguments::Arguments;
use super::compare::{equal, get};
use super::iterators::{View, ViewKind};
use super::operators::plain_text;
use super::print::repr;
use super::text::{self, strip};
use super::tuple::tuple;
use super::{elements, entries, format, from_int, is_dict, is_sequence, is_tuple, type_name};
use crate::template::budget::charge;
use crate::template::failure;

type Result<T = Value> = std::result::Result<T, Error>;

/// The methods of texts.
const OF_TEXTS: [&str; 45] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
];
/// Further methods of texts.
const MORE_OF_TEXTS: [&str; 2] = ["translate", "zfill"];
const OF_LISTS: [&str; 11] = [
    "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
    "sort",
];
const OF_TUPLES: [&str; 2] = ["count", "index"];
const OF_DICTS: [&str; 11] = [
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

/// Whether `value` has a method `name`.
pub(crate) fn has(value: &Value, name: &str) -> bool {
    if value.as_str().is_some() {
        return OF_TEXTS.contains(&name) || MORE_OF_TEXTS.contains(&name);
    }
    if is_tuple(value) {
        return OF_TUPLES.contains(&name);
    }
    if is_sequence(value) {
        return OF_LISTS.contains(&name);
    }
    is_dict(value) && OF_DICTS.contains(&name)
}

/// A method that is not called yet: `text.upper` without parentheses.
#[derive(Debug)]
struct Bound {
    value: Value,
    name: String,
}

impl Object for Bound {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &State<'_, '_>, args: &[Value]) -> Result {
        call_own(&self.value, &self.name, args)
    }
}

/// The method `name` of `value` as a value.
pub(crate) fn bound(value: &Value, name: &str) -> Value {
    Value::from_object(Bound {
        value: value.clone(),
        name: name.to_owned(),
    })
}

/// `value.name(args)`.
pub(crate) fn call(state: &State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result {
    if has(value, name) {
        return call_own(value, name, args);
    }
    super::subscript::attribute(value, name)?.call(state, args)
}

fn call_own(value: &Value, name: &str, args: &[Value]) -> Result {
    match plain_text(value)? {
        Some(text) => {
            charge(text.len())?;
            of_text(text, name, args)
        }
        None if is_dict(value) => of_dict(value, name, args),
        None => of_sequence(value, name, args),
    }
}

fn of_dict(dict: &Value, name: &str, args: &[Value]) -> Result {
    let (kind, elements) = match name {
        "get" => {
            let args = Arguments::bind("get", args, ["key", "default"])?;
            let found = get(dict, args.required(0)?)?;
            let default = || args.get(1).cloned().unwrap_or_else(|| Value::from(()));
            return Ok(found.unwrap_or_else(default));
        }
        "copy" => return Ok(dict.clone()),
        "items" => {
            let entries = entries(dict)?.into_iter();
            let items = entries.map(|(key, value)| tuple([key, value]));
            (ViewKind::Items, items.collect())
        }
        "keys" => (ViewKind::Keys, elements(dict)?),
        "values" => {
            let entries = entries(dict)?.into_iter();
            (ViewKind::Values, entries.map(|(_, value)| value).collect())
        }
        _ => return Err(changes("dict", name)),
    };
    Arguments::bind("this method", args, [])?;
    Ok(View::value(kind, elements))
}

fn of_sequence(list: &Value, name: &str, args: &[Value]) -> Result {
    match name {
        "count" => {
            let args = Arguments::bind("count", args, ["value"])?;
            let mut count = 0;
            for element in elements(list)? {
                count += i128::from(equal(&element, args.required(0)?)?);
            }
            Ok(from_int(count))
        }
        "index" => {
            let args = Arguments::bind("index", args, ["value", "start"])?;
            let start = args.size(1, 0)?;
            for (index, element) in elements(list)?.iter().enumerate().skip(start) {
                if equal(element, args.required(0)?)? {
                    return Ok(Value::from(index));
                }
            }
            Err(failure(format!(
                "{} is not in list",
                repr(args.required(0)?)?
            )))
        }
        "copy" => Ok(list.clone()),
        _ => Err(changes("list", name)),
    }
}

/// The sandbox of Jinja forbids what changes a value.
fn changes(what: &str, name: &str) -> Error {
    failure(format!(
        "the method '{name}' would change a {what}, which templates must not"
    ))
}

fn of_text(value: &str, name: &str, args: &[Value]) -> Result {
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
            return Err(failure(format!(
                "the method '{name}' of texts is not supported"
            )));
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
        fits |= window.is_some_and(|(window, _)| match name {
            "startswith" => window.starts_with(affix),
            _ => window.ends_with(affix),
        });
    }
    Ok(Value::from(fits))
}
