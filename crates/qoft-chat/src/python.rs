//! Python's values and operations, on the values of `minijinja`.
//!
//! | Python | here |
//! |---|---|
//! | `None`, bool, int, float, str | the same, with ints of 128 bits |
//! | list | a sequence |
//! | tuple | [`tuple::Tuple`] |
//! | generators, views of dicts, ranges | [`iterators`] |
//! | dict | a map |
//! | `jinja2.Undefined` | undefined |

pub(crate) mod arguments;
pub(crate) mod compare;
pub(crate) mod filters;
pub(crate) mod format;
pub(crate) mod iterators;
pub(crate) mod json;
pub(crate) mod methods;
pub(crate) mod numbers;
pub(crate) mod operators;
pub(crate) mod print;
pub(crate) mod subscript;
pub(crate) mod tests;
pub(crate) mod text;
pub(crate) mod tuple;
pub(crate) mod unicode;

use minijinja::Error;
use minijinja::value::{Value, ValueKind};
use serde_json::{Map, Value as Json};

use crate::budget::{DEEPEST, charge, charge_items, too_much};
use crate::error::failure;
use iterators::{Generator, View, ViewKind};
use tuple::Tuple;

/// A JSON object as variables of a template.
pub(crate) fn from_json_object(object: &Map<String, Json>) -> Value {
    let entries = object.iter();
    entries
        .map(|(name, value)| (Value::from(name.as_str()), from_json(value)))
        .collect()
}

fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => Value::from(value),
            (_, Some(value), _) => Value::from(value),
            (_, _, value) => Value::from(value.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(from_json).collect::<Vec<_>>().into(),
        Json::Object(object) => from_json_object(object),
    }
}

/// The name of a value's type, for messages.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "undefined",
        ValueKind::None => "None",
        ValueKind::Bool => "bool",
        ValueKind::Number if is_float(value) => "float",
        ValueKind::Number => "int",
        ValueKind::String => "str",
        _ if is_tuple(value) => "tuple",
        _ if view(value) == Some(ViewKind::Range) => "range",
        _ if view(value).is_some() => "view of a dict",
        _ if is_generator(value) => "generator",
        ValueKind::Seq | ValueKind::Iterable => "list",
        _ if is_dict(value) => "dict",
        ValueKind::Map => "namespace",
        _ => "function",
    }
}

pub(crate) fn is_float(value: &Value) -> bool {
    value.kind() == ValueKind::Number && !value.is_integer()
}

/// The number of an int or a bool, which is 0 or 1.
pub(crate) fn int(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// An int as a value.
pub(crate) fn from_int(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

/// The number of an int, a float or a bool.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match int(value) {
        Some(int) => Some(int as f64),
        None if is_float(value) => f64::try_from(value.clone()).ok(),
        None => None,
    }
}

pub(crate) fn is_tuple(value: &Value) -> bool {
    value.downcast_object_ref::<Tuple>().is_some()
}

/// Whether `value` is a map of `minijinja` itself, and not a namespace, `loop` or the like.
pub(crate) fn is_dict(value: &Value) -> bool {
    let object = value.as_object();
    value.kind() == ValueKind::Map
        && object.is_some_and(|object| object.type_name().starts_with("indexmap::"))
}

/// A list or tuple.
pub(crate) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
        && view(value).is_none()
        && !is_generator(value)
}

pub(crate) fn is_generator(value: &Value) -> bool {
    value.downcast_object_ref::<Generator>().is_some()
}

pub(crate) fn view(value: &Value) -> Option<ViewKind> {
    value.downcast_object_ref::<View>().map(|view| view.kind)
}

/// The elements that a `for` loop sees.
pub(crate) fn elements(value: &Value) -> Result<Vec<Value>, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(Vec::new()),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            charge_items(text.len())?;
            Ok(text.chars().map(Value::from).collect())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            charge_items(value.len().unwrap_or(0))?;
            let mut elements = Vec::new();
            for element in value.try_iter()? {
                if elements.len() % 4096 == 4095 {
                    charge_items(4096)?;
                }
                elements.push(element);
            }
            Ok(elements)
        }
        ValueKind::Map if is_dict(value) => {
            charge_items(value.len().unwrap_or(0))?;
            Ok(value.try_iter()?.collect())
        }
        _ => Err(failure(format!("'{}' is not iterable", type_name(value)))),
    }
}

/// The keys and values of a dict.
pub(crate) fn entries(dict: &Value) -> Result<Vec<(Value, Value)>, Error> {
    charge_items(dict.len().unwrap_or(0).saturating_mul(2))?;
    let keys = dict.try_iter()?;
    keys.map(|key| Ok((key.clone(), dict.get_item(&key)?)))
        .collect()
}

/// Fails when `value` is nested deeper than any operation may walk.
pub(crate) fn check_depth(value: &Value) -> Result<(), Error> {
    walk(value, 0, &mut |_| Ok(()))
}

/// Counts all that is in `value`, its texts too, for an operation that hashes or compares it.
pub(crate) fn charge_whole(value: &Value) -> Result<(), Error> {
    walk(value, 0, &mut |text| charge(text.len()))
}

/// Counts the elements of `value` and calls `read` for the texts in it.
fn walk(
    value: &Value,
    depth: usize,
    read: &mut dyn FnMut(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        return read(text);
    }
    let kind = value.kind();
    if !matches!(kind, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) {
        return Ok(());
    }
    if depth == DEEPEST {
        return Err(too_much("it nests values too deeply"));
    }
    if is_generator(value) {
        return Err(failure(
            "a generator within a list is not supported; list makes one of it",
        ));
    }
    charge_items(1 + value.len().unwrap_or(0))?;
    for element in value.try_iter()? {
        if kind == ValueKind::Map {
            walk(&value.get_item(&element)?, depth + 1, read)?;
        }
        walk(&element, depth + 1, read)?;
    }
    Ok(())
}

/// Counts a value that an operation reads, and returns it.
pub(crate) fn sized(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => charge(value.as_str().map_or(0, str::len))?,
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            charge_items(value.len().unwrap_or(0))?;
        }
        _ => {}
    }
    Ok(value)
}

/// An error: an operator has no meaning for two values.
pub(crate) fn unsupported(name: &str, a: &Value, b: &Value) -> Error {
    failure(format!(
        "unsupported operand types for {name}: '{}' and '{}'",
        type_name(a),
        type_name(b)
    ))
}
