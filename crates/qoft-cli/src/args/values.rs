//! Values of options.

use std::str::FromStr;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};

/// A value as it is written for an option: a text without quotes.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Options as an object.
pub(super) fn object(options: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(options)? {
        Value::Object(options) => Ok(options),
        _ => bail!("options are an object"),
    }
}

/// A whole number of 0 or more, or of 1 or more where 0 means nothing.
pub(super) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    let wrong = |_| match text.trim() {
        "0" => "expected a whole number of 1 or more".to_owned(),
        _ => "expected a whole number of 0 or more".to_owned(),
    };
    text.parse().map_err(wrong)
}

/// A number; `nan` and `inf` have no place in settings, nor in JSON.
pub(super) fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|_| "expected a number")?;
    if number.is_finite() {
        Ok(number)
    } else {
        Err("not a finite number".into())
    }
}
