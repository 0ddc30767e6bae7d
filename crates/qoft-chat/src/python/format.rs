//! `%` and `str.format`, by `minijinja`'s formatter.
//!
//! It writes numbers and texts as Python does, but other values in its own way: these become text
//! before. What it would write differently is refused.

use std::collections::HashMap;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, FormatStyle, format_filter};

use super::print::{repr, str};
use super::{arguments, elements, entries, int, is_dict, is_tuple, number, type_name};
use crate::budget::charge;
use crate::error::failure;

type Result<T> = std::result::Result<T, Error>;

/// Wider fields are refused.
const WIDEST: u32 = 10_000;

/// `text % value`.
pub(crate) fn percent(text: &str, value: &Value) -> Result<String> {
    let values = if is_tuple(value) {
        elements(value)?
    } else {
        vec![value.clone()]
    };
    percent_with(text, &values, is_dict(value).then_some(value))
}

/// The `format` filter.
pub(crate) fn percent_filter(text: &str, args: &[Value]) -> Result<String> {
    let (positional, named) = arguments::split(args);
    if named.is_empty() {
        return percent_with(text, positional, None);
    }
    if !positional.is_empty() {
        return Err(failure("format takes either positional or named arguments"));
    }
    let dict: Value = named
        .into_iter()
        .map(|(name, value)| (Value::from(name), value))
        .collect();
    percent_with(text, &[], Some(&dict))
}

/// One place of a format that a value is written to.
struct Field<'t> {
    key: Option<&'t str>,
    conversion: char,
    stars: usize,
}

fn percent_with(text: &str, values: &[Value], dict: Option<&Value>) -> Result<String> {
    charge(text.len())?;
    let fields = fields(text)?;
    if fields.iter().any(|field| field.key.is_some()) {
        let dict = dict.ok_or_else(|| failure("format requires a mapping"))?;
        let mut named: HashMap<&str, Value> = HashMap::new();
        for field in &fields {
            let key = field
                .key
                .ok_or_else(|| failure("format mixes named and other fields"))?;
            let value = super::compare::get(dict, &Value::from(key))?;
            let value = value.ok_or_else(|| failure(format!("no key '{key}' to format")))?;
            let value = prepared(&value, field.conversion)?;
            if named.get(key).is_some_and(|other| other != &value) {
                return Err(failure(
                    "a field is formatted in two ways, which is not supported",
                ));
            }
            named.insert(key, value);
        }
        let dict: Value = named
            .into_iter()
            .map(|(key, value)| (Value::from(key), value))
            .collect();
        return format_filter(FormatStyle::Printf, &plain_conversions(text), &[dict]);
    }
    let mut prepared_values = Vec::new();
    let mut left = values.iter();
    let mut next = || {
        left.next()
            .ok_or_else(|| failure("not enough arguments for format string"))
    };
    for field in &fields {
        for _ in 0..field.stars {
            let width = next()?;
            let number = int(width).ok_or_else(|| failure("* wants int"))?;
            if number.unsigned_abs() > u128::from(WIDEST) {
                return Err(failure("a field is too wide"));
            }
            prepared_values.push(width.clone());
        }
        prepared_values.push(prepared(next()?, field.conversion)?);
    }
    // Of a dict alone nothing has to be used.
    if left.next().is_some() && dict.is_none() {
        return Err(failure(
            "not all arguments converted during string formatting",
        ));
    }
    if fields.is_empty() {
        return Ok(text.replace("%%", "%"));
    }
    format_filter(
        FormatStyle::Printf,
        &plain_conversions(text),
        &prepared_values,
    )
}

/// The fields of a format, in order.
fn fields(text: &str) -> Result<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        let mut key = None;
        if let Some(named) = rest.strip_prefix('(') {
            let end = named
                .find(')')
                .ok_or_else(|| failure("incomplete format key"))?;
            key = Some(&named[..end]);
            rest = &named[end + 1..];
        }
        let is_option = |c: char| c.is_ascii_digit() || "#0- +.*hlL".contains(c);
        let end = rest
            .find(|c| !is_option(c))
            .ok_or_else(|| failure("incomplete format"))?;
        check_width(&rest[..end])?;
        let is_whole = rest[end..].starts_with(['d', 'i', 'u', 'o', 'x', 'X']);
        if is_whole && rest[..end].contains('.') {
            return Err(failure("a precision of integers is not supported"));
        }
        let stars = rest[..end].matches('*').count();
        let conversion = rest[end..].chars().next().unwrap_or_default();
        rest = &rest[end + conversion.len_utf8()..];
        match conversion {
            '%' if end == 0 && key.is_none() => {}
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'c' | 'r'
            | 's' => {
                fields.push(Field {
                    key,
                    conversion,
                    stars,
                });
            }
            other => return Err(failure(format!("unsupported format character '{other}'"))),
        }
    }
    Ok(fields)
}

/// The format with `%s` for what is text already, and `%d` under its other names.
fn plain_conversions(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        if rest.starts_with('(') {
            let end = rest.find(')').unwrap_or(0);
            plain.push_str(&rest[..=end]);
            rest = &rest[end + 1..];
        }
        let mut characters = rest.char_indices();
        let is_option = |c: char| c.is_ascii_digit() || "#0- +.*hlL".contains(c);
        let end = characters.find(|(_, c)| !is_option(*c));
        let Some((end, conversion)) = end else { break };
        plain.push_str(&rest[..end].replace(['h', 'l', 'L'], ""));
        plain.push(match conversion {
            'r' => 's',
            'i' | 'u' => 'd',
            other => other,
        });
        rest = &rest[end + conversion.len_utf8()..];
    }
    plain.push_str(rest);
    plain
}

/// `value` as the formatter has to see it for `conversion`.
fn prepared(value: &Value, conversion: char) -> Result<Value> {
    let wrong = |expected: &str| {
        let found = type_name(value);
        Err(failure(format!(
            "%{conversion} needs {expected}, not '{found}'"
        )))
    };
    Ok(match conversion {
        's' => Value::from(str(value)?),
        'r' => Value::from(repr(value)?),
        'd' | 'i' | 'u' => match (int(value), number(value)) {
            (Some(int), _) => super::from_int(int),
            (_, Some(number)) if number.abs() < 1e38 => super::from_int(number as i128),
            _ => return wrong("a number"),
        },
        'o' | 'x' | 'X' => match int(value) {
            Some(int) => super::from_int(int),
            None => return wrong("an int"),
        },
        'c' => match value.kind() {
            ValueKind::String | ValueKind::Number => value.clone(),
            _ => return wrong("a character"),
        },
        _ => match number(value) {
            Some(number) => Value::from(number),
            None => return wrong("a number"),
        },
    })
}

/// `text.format(args)`.
pub(crate) fn braces(text: &str, args: &[Value]) -> Result<String> {
    charge(text.len())?;
    let (positional, named) = arguments::split(args);
    let is_nested = |c: char| matches!(c, '{' | '}');
    // A field within a field takes its width from an argument; conversions are `!r` and the like.
    for field in text.replace("{{", "").replace("}}", "").split('{').skip(1) {
        let inner = field.split(is_nested).next().unwrap_or_default();
        if inner.contains('!') || !field.contains('}') {
            return Err(failure("this kind of format is not supported"));
        }
        if inner.len() == field.len() {
            return Err(failure("fields within fields are not supported"));
        }
        check_width(inner)?;
    }
    let plain = |value: &Value| -> Result<Value> {
        Ok(match value.kind() {
            ValueKind::String | ValueKind::Number | ValueKind::Bool => value.clone(),
            _ if text.contains(':') => {
                let found = type_name(value);
                return Err(failure(format!("a field may have no format for '{found}'")));
            }
            // Fields such as `{0[a]}` look into dicts.
            _ if is_dict(value) && text.contains(['[', '.']) => {
                let mut plain_entries = Vec::new();
                for (key, value) in entries(value)? {
                    plain_entries.push((key, Value::from(str(&value)?)));
                }
                plain_entries.into_iter().collect()
            }
            _ => Value::from(str(value)?),
        })
    };
    let mut prepared = positional.iter().map(plain).collect::<Result<Vec<_>>>()?;
    if !named.is_empty() {
        let named = named
            .iter()
            .map(|(name, value)| Ok((name.clone(), plain(value)?)));
        let named = named.collect::<Result<Vec<_>>>()?;
        prepared.push(Kwargs::from_iter(named).into());
    }
    format_filter(FormatStyle::StrFormat, text, &prepared)
}

/// Refuses a field whose width or precision is very large.
fn check_width(field: &str) -> Result<()> {
    let mut numbers = field
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty());
    if numbers.all(|digits| digits.parse().is_ok_and(|width: u32| width <= WIDEST)) {
        return Ok(());
    }
    Err(failure("a field is too wide"))
}
