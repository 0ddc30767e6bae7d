//! Jinja's tests, the words behind `is`.

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error};

use super::arguments::Arguments;
use super::compare::{compare, equal};
use super::iterators::ViewKind;
use super::operators::remainder;
use super::print::str;
use super::{int, is_dict, is_float, is_generator, is_sequence, number, type_name, view};

/// The tests of `minijinja` that Jinja lacks.
const NOT_OF_JINJA: [&str; 6] = [
    "endingwith",
    "filter",
    "int",
    "safe",
    "startingwith",
    "test",
];

const PROPERTIES: [&str; 19] = [
    "boolean",
    "callable",
    "defined",
    "escaped",
    "even",
    "false",
    "float",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "string",
    "true",
    "undefined",
    "upper",
];
const COMPARISONS: [(&str, &str); 18] = [
    ("eq", "=="),
    ("equalto", "=="),
    ("==", "=="),
    ("ne", "!="),
    ("!=", "!="),
    ("lt", "<"),
    ("lessthan", "<"),
    ("<", "<"),
    ("le", "<="),
    ("<=", "<="),
    ("gt", ">"),
    ("greaterthan", ">"),
    (">", ">"),
    ("ge", ">="),
    (">=", ">="),
    ("in", "in"),
    ("divisibleby", "divisibleby"),
    ("sameas", "sameas"),
];

/// Puts the tests into an environment.
pub(crate) fn add_to(environment: &mut Environment<'static>) {
    for name in NOT_OF_JINJA {
        environment.remove_test(name);
    }
    for name in PROPERTIES {
        environment.add_test(name, move |value: &Value, args: Rest<Value>| {
            Arguments::bind(name, &args, [])?;
            has_property(name, value)
        });
    }
    for (name, meaning) in COMPARISONS {
        environment.add_test(name, move |value: &Value, args: Rest<Value>| {
            let args = Arguments::bind(name, &args, ["other"])?;
            let other = args.required(0)?;
            match meaning {
                "divisibleby" => equal(&remainder(value, other)?, &Value::from(0)),
                "sameas" => Ok(type_name(value) == type_name(other) && equal(value, other)?),
                meaning => compare(meaning, value, other),
            }
        });
    }
}

fn has_property(name: &str, value: &Value) -> Result<bool, Error> {
    let kind = value.kind();
    let is_bool = |wanted: bool| kind == ValueKind::Bool && value.is_true() == wanted;
    let rest_of_two = |rest: i64| equal(&remainder(value, &Value::from(2))?, &Value::from(rest));
    Ok(match name {
        "boolean" => kind == ValueKind::Bool,
        "callable" => kind == ValueKind::Plain || kind == ValueKind::Undefined,
        "defined" => kind != ValueKind::Undefined,
        "escaped" => value.is_safe(),
        "even" => rest_of_two(0)?,
        "odd" => rest_of_two(1)?,
        "false" => is_bool(false),
        "true" => is_bool(true),
        "float" => is_float(value),
        "integer" => kind == ValueKind::Number && int(value).is_some(),
        "iterable" => {
            is_sequence(value)
                || is_dict(value)
                || is_generator(value)
                || view(value).is_some()
                || matches!(kind, ValueKind::String | ValueKind::Undefined)
        }
        "mapping" => is_dict(value),
        "none" => kind == ValueKind::None,
        "number" => number(value).is_some(),
        "sequence" => {
            is_sequence(value)
                || is_dict(value)
                || view(value) == Some(ViewKind::Range)
                || matches!(kind, ValueKind::String | ValueKind::Undefined)
        }
        "string" => kind == ValueKind::String,
        "undefined" => kind == ValueKind::Undefined,
        _ => {
            let text = str(value)?;
            let is_cased = text.chars().any(|c| c.is_lowercase() || c.is_uppercase());
            let is_wrong = |c: char| match name {
                "lower" => c.is_uppercase(),
                _ => c.is_lowercase(),
            };
            is_cased && !text.chars().any(is_wrong)
        }
    })
}
