//! Values as Python writes them: `str()` for `{{ … }}` and `json.dumps` for `tojson`.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};

/// Prints the value of a `{{ … }}`.
pub(super) fn print(
    out: &mut Output<'_>,
    _state: &State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text)?,
        None => out.write_str(&str(value))?,
    }
    Ok(())
}

/// Python's `str(value)`; an undefined value prints as nothing.
pub(super) fn str(value: &Value) -> String {
    match value.kind() {
        ValueKind::String | ValueKind::Undefined => value.to_string(),
        _ => repr(value),
    }
}

/// Python's `repr(value)`.
fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::String => repr_string(value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => float(value, ["nan", "inf", "-inf"]),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<String> = items(value).map(|item| repr(&item)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Map => {
            let entries: Vec<String> = entries(value)
                .map(|(key, value)| format!("{}: {}", repr(&key), repr(&value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        _ => value.to_string(),
    }
}

/// A string in quotes. Python takes `"` only where that saves escaping a `'`.
fn repr_string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// A float with the fewest digits that give the same number; `special` are the words for
/// not-a-number and the infinities.
fn float(value: &Value, special: [&str; 3]) -> String {
    let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    if number.is_nan() {
        return special[0].to_owned();
    }
    if number.is_infinite() {
        return special[if number > 0.0 { 1 } else { 2 }].to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// The keyword arguments of `json.dumps`.
pub(super) struct JsonStyle {
    ensure_ascii: bool,
    sort_keys: bool,
    /// What one level of nesting is indented with; everything on one line without it.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

impl JsonStyle {
    /// Reads the arguments, with the defaults of transformers' `tojson`.
    pub(super) fn from_kwargs(options: &Kwargs) -> Result<Self, Error> {
        let indent = match options.get::<Option<Value>>("indent")? {
            None => None,
            Some(value) if value.is_none() => None,
            Some(value) => Some(match value.as_str() {
                Some(text) => text.to_owned(),
                None => " ".repeat(usize::try_from(value)?.min(64)),
            }),
        };
        let separators: Option<(String, String)> =
            match options.get::<Option<Value>>("separators")? {
                Some(pair) if !pair.is_none() => Some((
                    pair.get_item_by_index(0)?.to_string(),
                    pair.get_item_by_index(1)?.to_string(),
                )),
                _ => None,
            };
        let (item_separator, key_separator) = separators.unwrap_or_else(|| {
            let items = if indent.is_some() { "," } else { ", " };
            (items.to_owned(), ": ".to_owned())
        });
        Ok(Self {
            ensure_ascii: options
                .get::<Option<bool>>("ensure_ascii")?
                .unwrap_or(false),
            sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
            indent,
            item_separator,
            key_separator,
        })
    }
}

/// Python's `json.dumps(value)`.
pub(super) fn json_dumps(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut out = String::new();
    write_json(&mut out, value, style, 0)?;
    Ok(out)
}

fn write_json(
    out: &mut String,
    value: &Value,
    style: &JsonStyle,
    depth: usize,
) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => out.push_str(&float(value, ["NaN", "Infinity", "-Infinity"])),
        ValueKind::String => write_json_string(out, value.as_str().unwrap_or_default(), style),
        ValueKind::Seq | ValueKind::Iterable => {
            write_block(out, ['[', ']'], items(value), style, depth, |out, item| {
                write_json(out, &item, style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut entries: Vec<_> = entries(value).collect();
            if style.sort_keys {
                entries.sort_by_key(|(key, _)| key.to_string());
            }
            let entries = entries.into_iter();
            write_block(
                out,
                ['{', '}'],
                entries,
                style,
                depth,
                |out, (key, value)| {
                    write_json_key(out, &key, style)?;
                    out.push_str(&style.key_separator);
                    write_json(out, &value, style, depth + 1)
                },
            )?;
        }
        kind => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("tojson cannot write a value of the kind {kind}"),
            ));
        }
    }
    Ok(())
}

/// Writes brackets with `items` between them, each on its own line where the style indents.
fn write_block<T>(
    out: &mut String,
    brackets: [char; 2],
    items: impl Iterator<Item = T>,
    style: &JsonStyle,
    depth: usize,
    mut write_item: impl FnMut(&mut String, T) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(brackets[0]);
    let mut is_empty = true;
    for item in items {
        if !is_empty {
            out.push_str(&style.item_separator);
        }
        is_empty = false;
        start_line(out, style, depth + 1);
        write_item(out, item)?;
    }
    if !is_empty {
        start_line(out, style, depth);
    }
    out.push(brackets[1]);
    Ok(())
}

fn start_line(out: &mut String, style: &JsonStyle, depth: usize) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        out.push_str(&indent.repeat(depth));
    }
}

/// Writes a key of an object; JSON knows only strings there.
fn write_json_key(out: &mut String, key: &Value, style: &JsonStyle) -> Result<(), Error> {
    match key.as_str() {
        Some(text) => write_json_string(out, text, style),
        None => {
            let mut text = String::new();
            write_json(&mut text, key, style, 0)?;
            write_json_string(out, &text, style);
        }
    }
    Ok(())
}

fn write_json_string(out: &mut String, text: &str, style: &JsonStyle) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            c if c >= ' ' && !style.ensure_ascii => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

fn items(value: &Value) -> impl Iterator<Item = Value> {
    value.try_iter().into_iter().flatten()
}

fn entries(value: &Value) -> impl Iterator<Item = (Value, Value)> {
    items(value).map(move |key| {
        let entry = value.get_item(&key).unwrap_or_default();
        (key, entry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        Value::from_serialize(serde_json::from_str::<serde_json::Value>(json).unwrap())
    }

    #[test]
    fn str_prints_as_python_does() {
        let cases = [
            ("null", "None"),
            ("true", "True"),
            ("\"it's\"", "it's"),
            ("1", "1"),
            ("1.0", "1.0"),
            ("-0.5", "-0.5"),
            ("0.00001", "1e-05"),
            ("0.0001", "0.0001"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.25e100", "1.25e+100"),
            (
                r#"{"b": ["x", null, false], "a": {"it's": "\"'\n"}}"#,
                r#"{'b': ['x', None, False], 'a': {"it's": '"\'\n'}}"#,
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(str(&value(json)), expected, "{json}");
        }
        assert_eq!(str(&Value::UNDEFINED), "");
    }

    fn dumps(json: &str, options: Vec<(&str, Value)>) -> String {
        let style = JsonStyle::from_kwargs(&Kwargs::from_iter(options)).unwrap();
        json_dumps(&value(json), &style).unwrap()
    }

    #[test]
    fn json_dumps_writes_on_one_line_with_spaces() {
        let json = r#"{"b":[1,2.0,true,null],"a":"<é&'\n\u0001>","c":{},"d":[]}"#;
        assert_eq!(
            dumps(json, vec![]),
            r#"{"b": [1, 2.0, true, null], "a": "<é&'\n\u0001>", "c": {}, "d": []}"#
        );
    }

    #[test]
    fn json_dumps_follows_its_options() {
        let json = r#"{"b":[1,{"x":2}],"a":"é😀","c":[]}"#;
        assert_eq!(
            dumps(json, vec![("indent", Value::from(2))]),
            "{\n  \"b\": [\n    1,\n    {\n      \"x\": 2\n    }\n  ],\n  \"a\": \"é😀\",\n  \"c\": []\n}"
        );
        assert_eq!(
            dumps(
                json,
                vec![
                    ("sort_keys", Value::from(true)),
                    ("ensure_ascii", Value::from(true)),
                    ("separators", Value::from(vec![",", ":"])),
                ]
            ),
            r#"{"a":"\u00e9\ud83d\ude00","b":[1,{"x":2}],"c":[]}"#
        );
    }
}
