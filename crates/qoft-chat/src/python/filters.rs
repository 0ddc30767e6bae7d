//! Jinja's filters where `minijinja` does otherwise.

mod lists;
mod numbers;
mod select;
mod texts;

use minijinja::value::{Rest, Value};
use minijinja::{Environment, Error, State};

use super::arguments::Arguments;
use super::print::str;
use super::subscript::{attribute, item};
use super::{int, json};
use crate::budget::charge_items;

type Result<T = Value> = std::result::Result<T, Error>;

/// The filters of `minijinja` that Jinja lacks, or that other functions here do not stand for.
const NOT_OF_JINJA: [&str; 12] = [
    "attr", "bool", "chain", "e", "escape", "format", "groupby", "lines", "pprint", "safe",
    "split", "zip",
];

/// Puts the filters into an environment.
pub(crate) fn add_to(environment: &mut Environment<'static>) {
    for name in NOT_OF_JINJA {
        environment.remove_filter(name);
    }
    let add = |environment: &mut Environment<'static>, names: &[&'static str], filter: Filter| {
        for name in names {
            let name = *name;
            environment.add_filter(
                name,
                move |state: &State<'_, '_>, value: Value, args: Rest<Value>| {
                    filter(state, name, &value, &args)
                },
            );
        }
    };
    add(environment, &texts::NAMES, texts::apply);
    add(environment, &lists::NAMES, lists::apply);
    add(environment, &numbers::NAMES, numbers::apply);
    add(environment, &select::NAMES, select::apply);
    add(environment, &["tojson"], |_, _, value, args| {
        json::to_json(value, args).map(Value::from)
    });
    add(environment, &["string"], |_, _, value, args| {
        Arguments::bind("string", args, [])?;
        Ok(Value::from(str(value)?))
    });
}

type Filter = fn(&State<'_, '_>, &'static str, &Value, &[Value]) -> Result;

/// What a path such as `address.city` or `tags.0` leads to from `value`.
fn at_path(value: &Value, path: &Value) -> Result {
    let Some(path) = path.as_str() else {
        return item(value, path);
    };
    let mut found = value.clone();
    for part in path.split('.') {
        charge_items(1)?;
        found = match part.parse::<i64>() {
            Ok(index) => item(&found, &Value::from(index))?,
            Err(_) if super::is_dict(&found) => item(&found, &Value::from(part))?,
            Err(_) => attribute(&found, part)?,
        };
    }
    Ok(found)
}

/// A text in small letters, as sorting compares it.
fn ignoring_case(value: Value) -> Value {
    match value.as_str() {
        Some(text) => Value::from(text.to_lowercase()),
        None => value,
    }
}

/// Whether a value has elements that a filter may go through: what is false has none.
fn elements_if_true(value: &Value) -> Result<Vec<Value>> {
    if value.is_true() || int(value).is_some_and(|number| number != 0) {
        super::elements(value)
    } else {
        Ok(Vec::new())
    }
}
