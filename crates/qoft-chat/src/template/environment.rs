//! What templates find around them: the Jinja environment of transformers' `_compile_jinja_template`.

use std::fmt::Write as _;
use std::sync::LazyLock;

use minijinja::value::{Rest, Value};
use minijinja::{Environment, Error, Output, State};

use super::tags;
use crate::budget::{charge, charge_items};
use crate::error::failure;
use crate::python::arguments::{Arguments, split};
use crate::python::compare::{Seen, chain, check_key, compare};
use crate::python::iterators::{View, ViewKind};
use crate::python::{
    charge_whole, check_depth, elements, filters, operators, print, sized, subscript,
};
use crate::python::{entries, int, is_dict, tests, tuple, type_name};

/// The variable with the marks that go around the assistant's text. No template can name it.
pub(crate) const MARKS: &str = "(marks)";

/// The longest list that `range` makes, as in Jinja's sandbox.
const LONGEST_RANGE: u128 = 100_000;

/// The environment of all templates.
pub(super) fn shared() -> &'static Environment<'static> {
    static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);
    &ENVIRONMENT
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_formatter(write);
    filters::add_to(&mut environment);
    tests::add_to(&mut environment);
    add_operators(&mut environment);
    environment.add_filter(tags::FILTER, mark);
    environment.remove_global("debug");
    environment.add_function("dict", dict);
    environment.add_function("namespace", namespace);
    environment.add_function("range", range);
    for name in ["cycler", "joiner", "lipsum"] {
        environment.add_function(name, move |_: Rest<Value>| {
            Err::<Value, _>(failure(format!("the function {name} is not supported")))
        });
    }
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment
}

/// Writes the value of a `{{ … }}`.
fn write(out: &mut Output<'_>, _: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => {
            charge(text.len())?;
            out.write_str(text)?;
        }
        None => out.write_str(&print::str(value)?)?,
    }
    Ok(())
}

/// The filters that stand for operators, subscripts, literals and calls of methods.
fn add_operators(environment: &mut Environment<'static>) {
    type Binary = fn(&Value, &Value) -> Result<Value, Error>;
    let binary: [(&'static str, Binary); 8] = [
        ("+", operators::add),
        ("-", operators::subtract),
        ("*", operators::multiply),
        ("/", operators::divide),
        ("//", operators::floor_divide),
        ("%", operators::remainder),
        ("**", operators::power),
        ("~", operators::concatenate),
    ];
    for (name, operation) in binary {
        environment.add_filter(name, move |a: &Value, b: &Value| operation(a, b));
    }
    for name in ["==", "!=", "<", "<=", ">", ">=", "in"] {
        environment.add_filter(name, move |a: &Value, b: &Value| compare(name, a, b));
    }
    environment.add_filter("<<", |first: &Value, rest: Rest<Value>| chain(first, &rest));
    environment.add_filter("-x", |value: &Value| operators::negate(value));
    environment.add_filter("[]", |value: &Value, key: &Value| {
        subscript::item(value, key)
    });
    environment.add_filter(
        "[:]",
        |value: &Value, start: &Value, stop: &Value, step: &Value| {
            subscript::slice(value, start, stop, step)
        },
    );
    environment.add_filter(".", |value: &Value, name: &str| {
        subscript::attribute(value, name)
    });
    environment.add_filter(
        "()",
        |state: &State<'_, '_>, value: &Value, name: &str, args: Rest<Value>| {
            subscript::call(state, value, name, &args)
        },
    );
    environment.add_filter("[,]", |list: Value| check_depth(&list).map(|()| list));
    environment.add_filter("(,)", |list: Value| {
        check_depth(&list)?;
        Ok::<_, Error>(tuple::tuple(elements(&list)?))
    });
    environment.add_filter("{,}", |map: Value| {
        check_depth(&map)?;
        check_keys(&map)?;
        Ok::<_, Error>(map)
    });
    environment.add_filter("@for", |value: &Value| elements(value).map(Value::from));
    environment.add_filter("@and", |value: Value| value);
    environment.add_filter("@whole", |value: Value| {
        charge_whole(&value).map(|()| value)
    });
    environment.add_filter("@sized", sized);
}

/// Keys must be of types that can be keys; 1, 1.0 and `True` are one key, and not several.
fn check_keys(map: &Value) -> Result<(), Error> {
    let mut seen = Seen::default();
    for key in elements(map)? {
        charge_whole(&key)?;
        if !seen.is_new(key)? {
            return Err(failure("a dict has a key twice, which is not supported"));
        }
    }
    Ok(())
}

/// The text of `{% generation %}`, between marks if it is to be marked.
fn mark(state: &State<'_, '_>, text: &str) -> Result<String, Error> {
    charge(text.len())?;
    let marks = state.lookup(MARKS).unwrap_or_default();
    if marks.is_undefined() {
        return Ok(text.to_owned());
    }
    let mark = |index: usize| marks.get_item_by_index(index);
    Ok(format!("{}{text}{}", mark(0)?, mark(1)?))
}

fn dict(args: Rest<Value>) -> Result<Value, Error> {
    let (positional, named) = split(&args);
    let mut all = match positional {
        [] => Vec::new(),
        [other] if is_dict(other) => entries(other)?,
        [pairs] => {
            let pairs = elements(pairs)?;
            let pair = |pair: &Value| match &elements(pair)?[..] {
                [key, value] => Ok((key.clone(), value.clone())),
                _ => Err(failure("dict needs pairs of keys and values")),
            };
            pairs.iter().map(pair).collect::<Result<_, _>>()?
        }
        _ => return Err(failure("dict takes at most one argument")),
    };
    all.extend(
        named
            .into_iter()
            .map(|(name, value)| (Value::from(name), value)),
    );
    for (key, value) in &all {
        check_key(key)?;
        charge_whole(key)?;
        check_depth(value)?;
    }
    Ok(all.into_iter().collect())
}

fn namespace(args: Rest<Value>) -> Result<Value, Error> {
    // Each one costs, so that chains of them are not long.
    charge(50_000)?;
    let entries = dict(args)?;
    for name in elements(&entries)? {
        if name.as_str().is_none_or(|name| name.starts_with('_')) {
            return Err(failure(
                "a namespace cannot have an attribute with this name",
            ));
        }
    }
    minijinja::functions::namespace(Some(entries))
}

fn range(args: Rest<Value>) -> Result<Value, Error> {
    let number = |value: &Value| {
        int(value).ok_or_else(|| failure(format!("range needs ints, not '{}'", type_name(value))))
    };
    let (start, stop, step) = match &args[..] {
        [stop] => (0, number(stop)?, 1),
        [start, stop] => (number(start)?, number(stop)?, 1),
        [start, stop, step] => (number(start)?, number(stop)?, number(step)?),
        _ => return Err(failure("range takes one to three arguments")),
    };
    if step == 0 {
        return Err(failure("range() arg 3 must not be zero"));
    }
    let distance = if step > 0 {
        stop.checked_sub(start)
    } else {
        start.checked_sub(stop)
    };
    let distance = distance
        .ok_or_else(|| failure("a range is too large"))?
        .max(0);
    let length = distance.unsigned_abs().div_ceil(step.unsigned_abs());
    if length > LONGEST_RANGE {
        return Err(failure(format!("a range of {length} numbers is too long")));
    }
    charge_items(length as usize)?;
    let numbers = (0..length as i128).map(|index| crate::python::from_int(start + index * step));
    Ok(View::value(ViewKind::Range, numbers.collect()))
}

/// Refuses the conversation: the only error that a template means.
fn raise_exception(args: Rest<Value>) -> Result<Value, Error> {
    let args = Arguments::bind("raise_exception", &args, ["message"])?;
    Err(failure(print::str(args.required(0)?)?))
}

/// The local time in the format of C's `strftime`.
fn strftime_now(args: Rest<Value>) -> Result<String, Error> {
    let args = Arguments::bind("strftime_now", &args, ["format"])?;
    let format = args.required_text(0)?;
    charge(format.len().saturating_mul(64))?;
    strftime(&chrono::Local::now().naive_local(), format)
}

fn strftime(time: &chrono::NaiveDateTime, format: &str) -> Result<String, Error> {
    let mut text = String::new();
    write!(text, "{}", time.format(format))
        .map_err(|_| failure(format!("strftime_now does not know the format {format:?}")))?;
    Ok(text)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn strftime_formats_as_python_does_and_reports_unknown_formats() {
        let time = chrono::NaiveDate::from_ymd_opt(2025, 3, 4)
            .and_then(|day| day.and_hms_opt(9, 5, 6))
            .unwrap();
        assert_eq!(
            strftime(&time, "%d %b %Y, %H:%M").unwrap(),
            "04 Mar 2025, 09:05"
        );
        assert!(strftime(&time, "%Q").is_err());
    }
}
