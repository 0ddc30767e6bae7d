//! `value.name`, `value[key]` and `value[start:stop:step]`.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::compare::get;
use super::iterators::{View, ViewKind};
use super::operators::sequence_like;
use super::{elements, int, is_dict, is_sequence, methods, type_name, view};
use crate::budget::charge;
use crate::error::failure;

type Result<T = Value> = std::result::Result<T, Error>;

/// `value.name`: as in Jinja, a method goes before an entry of the same name.
pub(crate) fn attribute(value: &Value, name: &str) -> Result {
    if value.is_undefined() {
        return Err(undefined(name));
    }
    if methods::has(value, name) {
        return methods::bound(value, name);
    }
    if is_dict(value) {
        return Ok(get(value, &Value::from(name))?.unwrap_or_default());
    }
    if name.starts_with("__") || is_of_numbers(value, name) {
        let found = type_name(value);
        return Err(failure(format!("'{name}' of '{found}' is not supported")));
    }
    value.get_attr(name)
}

/// `value.name(args)`.
pub(crate) fn call(state: &State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result {
    if methods::has(value, name) {
        return methods::call_own(value, name, args);
    }
    attribute(value, name)?.call(state, args)
}

/// Whether Python's numbers and ranges have an attribute `name`.
fn is_of_numbers(value: &Value, name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "as_integer_ratio",
        "bit_count",
        "bit_length",
        "conjugate",
        "denominator",
        "fromhex",
        "hex",
        "imag",
        "is_integer",
        "numerator",
        "real",
        "to_bytes",
    ];
    const OF_RANGES: [&str; 5] = ["count", "index", "start", "step", "stop"];
    match value.kind() {
        ValueKind::Number | ValueKind::Bool => NAMES.contains(&name),
        _ => view(value) == Some(ViewKind::Range) && OF_RANGES.contains(&name),
    }
}

/// `value[key]`.
pub(crate) fn item(value: &Value, key: &Value) -> Result {
    if value.is_undefined() {
        return Err(undefined(&key.to_string()));
    }
    if is_dict(value) {
        if let Some(found) = get(value, key)? {
            return Ok(found);
        }
    } else if let (Some(index), Some(length)) = (int(key), length(value)?) {
        let index = if index < 0 {
            index + length as i128
        } else {
            index
        };
        let Some(index) = usize::try_from(index).ok().filter(|index| *index < length) else {
            return Ok(Value::UNDEFINED);
        };
        return match value.as_str() {
            Some(text) => Ok(text
                .chars()
                .nth(index)
                .map_or(Value::UNDEFINED, Value::from)),
            None => value.get_item_by_index(index),
        };
    }
    match key.as_str() {
        Some(name) if methods::has(value, name) => methods::bound(value, name),
        Some(name) if !is_dict(value) => attribute(value, name),
        _ => Ok(Value::UNDEFINED),
    }
}

/// The number of elements of a text, list or tuple.
fn length(value: &Value) -> Result<Option<usize>> {
    Ok(match value.as_str() {
        Some(text) => {
            charge(text.len())?;
            Some(text.chars().count())
        }
        None if is_sequence(value) || view(value) == Some(ViewKind::Range) => {
            Some(match value.len() {
                Some(length) => length,
                None => elements(value)?.len(),
            })
        }
        None => None,
    })
}

/// `value[start:stop:step]`.
pub(crate) fn slice(value: &Value, start: &Value, stop: &Value, step: &Value) -> Result {
    let bound = |bound: &Value| match (bound.kind(), int(bound)) {
        (ValueKind::None, _) => Ok(None),
        (_, Some(bound)) => Ok(Some(bound)),
        _ => Err(failure(format!(
            "slice indices must be integers or None, not '{}'",
            type_name(bound)
        ))),
    };
    if value.is_undefined() {
        return Err(undefined("a slice"));
    }
    let is_range = view(value) == Some(ViewKind::Range);
    if value.kind() != ValueKind::String && !is_sequence(value) && !is_range {
        let found = type_name(value);
        return Err(failure(format!("'{found}' cannot be sliced")));
    }
    let bounds = (bound(start)?, bound(stop)?, bound(step)?);
    if let Some(text) = value.as_str() {
        charge(text.len())?;
        return slice_of_text(text, bounds).map(Value::from);
    }
    let all = elements(value)?;
    let chosen = indices(all.len(), bounds)?;
    let chosen = chosen.into_iter().map(|index| all[index].clone());
    Ok(match is_range {
        true => View::value(ViewKind::Range, chosen.collect()),
        false => sequence_like(value, chosen.collect()),
    })
}

type Bounds = (Option<i128>, Option<i128>, Option<i128>);

fn slice_of_text(text: &str, bounds: Bounds) -> Result<String> {
    if bounds.2.is_none_or(|step| step == 1) {
        let length = text.chars().count();
        let (start, stop) = ends(length, bounds.0, bounds.1);
        let chosen = text.chars().skip(start).take(stop.saturating_sub(start));
        return Ok(chosen.collect());
    }
    let all: Vec<char> = text.chars().collect();
    let chosen = indices(all.len(), bounds)?;
    Ok(chosen.into_iter().map(|index| all[index]).collect())
}

/// Where a slice without a step starts and stops.
fn ends(length: usize, start: Option<i128>, stop: Option<i128>) -> (usize, usize) {
    let place = |bound: i128| {
        let place = if bound < 0 {
            bound.saturating_add(length as i128)
        } else {
            bound
        };
        usize::try_from(place.max(0))
            .unwrap_or(usize::MAX)
            .min(length)
    };
    (start.map_or(0, place), stop.map_or(length, place))
}

/// The indices of a slice, as `slice.indices` of Python tells them.
fn indices(length: usize, (start, stop, step): Bounds) -> Result<Vec<usize>> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(failure("slice step cannot be zero"));
    }
    let length = length as i128;
    let (lowest, highest) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let place = |bound: Option<i128>, default: i128| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(length).max(lowest),
        Some(bound) => bound.min(highest),
    };
    let (first, last) = if step > 0 {
        (lowest, highest)
    } else {
        (highest, lowest)
    };
    let (mut at, stop) = (place(start, first), place(stop, last));
    let mut indices = Vec::new();
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        indices.extend(usize::try_from(at));
        at = at.saturating_add(step);
    }
    Ok(indices)
}

fn undefined(what: &str) -> Error {
    Error::new(
        minijinja::ErrorKind::UndefinedError,
        format!("the value that should have '{what}' is undefined"),
    )
}
