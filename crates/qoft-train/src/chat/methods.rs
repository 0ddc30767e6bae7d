//! Methods of Python's strings that `minijinja` or its Python add-on lack or do differently.

use minijinja::value::from_args;
use minijinja::{Error, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Calls the Python method `method` of `value`.
pub(super) fn call(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return unknown_method_callback(state, value, method, args);
    };
    match method {
        // The add-on answers in bytes, but slices of strings count characters.
        "find" => {
            let (what,): (&str,) = from_args(args)?;
            Ok(character_index(text, text.find(what)))
        }
        "rfind" => {
            let (what,): (&str,) = from_args(args)?;
            Ok(character_index(text, text.rfind(what)))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        _ => unknown_method_callback(state, value, method, args),
    }
}

/// The number of characters before byte `offset`; -1 for `None`, as Python answers.
fn character_index(text: &str, offset: Option<usize>) -> Value {
    Value::from(offset.map_or(-1, |offset| {
        i64::try_from(text[..offset].chars().count()).unwrap_or(i64::MAX)
    }))
}
