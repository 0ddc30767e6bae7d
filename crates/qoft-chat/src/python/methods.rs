//! Methods of texts, lists, tuples and dicts.

mod texts;

use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{Error, State};

use super::arguments::Arguments;
use super::compare::{equal, get};
use super::iterators::{View, ViewKind};
use super::operators::plain_text;
use super::print::repr;
use super::tuple::tuple;
use super::{elements, entries, from_int, is_dict, is_sequence, is_tuple, type_name};
use crate::budget::charge;
use crate::error::failure;

type Result<T = Value> = std::result::Result<T, Error>;

/// The names of methods, with spaces between them.
const OF_TEXTS: &str = "capitalize casefold center count encode endswith expandtabs find format \
    format_map index isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric \
    isprintable isspace istitle isupper join ljust lower lstrip maketrans partition removeprefix \
    removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith \
    strip swapcase title translate upper zfill";
const OF_LISTS: &str = "append clear copy count extend index insert pop remove reverse sort";
const OF_TUPLES: &str = "count index";
const OF_DICTS: &str = "clear copy fromkeys get items keys pop popitem setdefault update values";

/// Those that change a value, which the sandbox of Jinja forbids.
const CHANGING: &str =
    "append clear extend insert pop popitem remove reverse setdefault sort update";

/// Whether `value` has a method `name`.
pub(crate) fn has(value: &Value, name: &str) -> bool {
    let names = match value.as_str() {
        Some(_) => OF_TEXTS,
        None if is_tuple(value) => OF_TUPLES,
        None if is_sequence(value) => OF_LISTS,
        None if is_dict(value) => OF_DICTS,
        None => return false,
    };
    is_among(names, name)
}

fn is_among(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|known| known == name)
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
pub(crate) fn bound(value: &Value, name: &str) -> Result {
    check_unchanging(value, name)?;
    Ok(Value::from_object(Bound {
        value: value.clone(),
        name: name.to_owned(),
    }))
}

fn check_unchanging(value: &Value, name: &str) -> Result<()> {
    if value.as_str().is_none() && is_among(CHANGING, name) {
        let found = type_name(value);
        return Err(failure(format!(
            "the method '{name}' would change a {found}, which templates must not"
        )));
    }
    Ok(())
}

pub(super) fn call_own(value: &Value, name: &str, args: &[Value]) -> Result {
    check_unchanging(value, name)?;
    match plain_text(value)? {
        Some(text) => {
            charge(text.len())?;
            texts::call(text, name, args)
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
        _ => return Err(unsupported(name)),
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
        _ => Err(unsupported(name)),
    }
}

fn unsupported(name: &str) -> Error {
    failure(format!("the method '{name}' is not supported"))
}
