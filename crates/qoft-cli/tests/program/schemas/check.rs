//! JSON Schema, as far as `docs/schemas` has it.

use serde_json::{Map, Value};

/// Words that are checked here, or that say nothing about values.
const KNOWN: [&str; 12] = [
    "$schema",
    "title",
    "description",
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minimum",
    "enum",
    "oneOf",
    "const",
];

/// What of a value is not as the schema says: where, and what.
pub fn problem(schema: &Value, value: &Value) -> Option<String> {
    match schema {
        Value::Bool(true) => None,
        Value::Object(words) => of_words(words, value),
        _ => Some("nothing is allowed here".into()),
    }
}

fn of_words(words: &Map<String, Value>, value: &Value) -> Option<String> {
    if let Some(word) = words.keys().find(|word| !KNOWN.contains(&word.as_str())) {
        return Some(format!("the schema has `{word}`, which is not checked"));
    }
    let types = match words.get("type") {
        None => Vec::new(),
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect(),
        Some(one) => vec![one.as_str().unwrap_or_default()],
    };
    if !types.is_empty() && !types.iter().any(|name| is(name, value)) {
        return Some(format!("{value} is no {}", types.join(" or ")));
    }
    if let Some(least) = words.get("minimum").and_then(Value::as_f64)
        && value.as_f64().is_some_and(|number| number < least)
    {
        return Some(format!("{value} is below {least}"));
    }
    if let Some(Value::Array(values)) = words.get("enum")
        && !values.contains(value)
    {
        return Some(format!("{value} is none of the values"));
    }
    if let Some(Value::Array(ways)) = words.get("oneOf") {
        let problems: Vec<String> = ways.iter().filter_map(|way| problem(way, value)).collect();
        if ways.len() - problems.len() != 1 {
            return Some(format!("not one of the ways: {}", problems.join("; ")));
        }
    }
    match value {
        Value::Object(fields) => of_fields(words, fields),
        Value::Array(items) => {
            let schema = words.get("items")?;
            let mut each = items.iter().enumerate();
            each.find_map(|(at, item)| Some(format!("[{at}]: {}", problem(schema, item)?)))
        }
        _ => None,
    }
}

fn of_fields(words: &Map<String, Value>, fields: &Map<String, Value>) -> Option<String> {
    let required = words.get("required").and_then(Value::as_array);
    let mut required = required.into_iter().flatten().filter_map(Value::as_str);
    if let Some(name) = required.find(|name| !fields.contains_key(*name)) {
        return Some(format!("`{name}` is missing"));
    }
    let properties = words.get("properties").and_then(Value::as_object);
    let others = words
        .get("additionalProperties")
        .unwrap_or(&Value::Bool(true));
    let mut each = fields.iter();
    each.find_map(|(name, value)| {
        let own = properties.and_then(|properties| properties.get(name));
        Some(format!(
            "`{name}`: {}",
            problem(own.unwrap_or(others), value)?
        ))
    })
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}
