//! Filters of numbers.

use minijinja::State;
use minijinja::value::Value;

use super::Result;
use crate::error::failure;
use crate::python::arguments::Arguments;
use crate::python::numbers::{parse_int, round, to_float, truncate};
use crate::python::{from_int, int, number, operators, type_name};

pub(super) const NAMES: [&str; 4] = ["abs", "float", "int", "round"];

pub(super) fn apply(_: &State<'_, '_>, name: &str, value: &Value, args: &[Value]) -> Result {
    if value.is_undefined() {
        return Err(failure(format!("{name} of an undefined value")));
    }
    match name {
        "int" => {
            let args = Arguments::bind("int", args, ["default", "base"])?;
            let base = u32::try_from(args.int(1)?.unwrap_or(10)).unwrap_or(10);
            let found = match value.as_str() {
                Some(text) => parse_int(text, base),
                None => int(value),
            };
            match (found, to_float(value)) {
                (Some(found), _) => Ok(from_int(found)),
                (None, Some(number)) if number.is_finite() => Ok(from_int(truncate(number)?)),
                _ => Ok(args.get(0).cloned().unwrap_or(Value::from(0))),
            }
        }
        "float" => {
            let args = Arguments::bind("float", args, ["default"])?;
            match to_float(value) {
                Some(number) => Ok(Value::from(number)),
                None => Ok(args.get(0).cloned().unwrap_or(Value::from(0.0))),
            }
        }
        "abs" => {
            Arguments::bind("abs", args, [])?;
            match number(value) {
                Some(number) if number < 0.0 => operators::negate(value),
                Some(_) if int(value).is_some() => Ok(from_int(int(value).unwrap_or(0))),
                Some(number) => Ok(Value::from(number.abs())),
                None => Err(no_number(value)),
            }
        }
        _ => {
            let args = Arguments::bind("round", args, ["precision", "method"])?;
            let precision = args.int(0)?.unwrap_or(0);
            rounded(value, precision, args.text(1)?.unwrap_or("common"))
        }
    }
}

fn no_number(value: &Value) -> minijinja::Error {
    failure(format!("a number is needed, found '{}'", type_name(value)))
}

fn rounded(value: &Value, precision: i128, method: &str) -> Result {
    let float = number(value).ok_or_else(|| no_number(value))?;
    match (method, int(value)) {
        ("common", Some(number)) if precision >= 0 => Ok(from_int(number)),
        ("common", Some(number)) => {
            let scale = u32::try_from(-precision)
                .ok()
                .and_then(|precision| 10_i128.checked_pow(precision));
            let Some(scale) = scale else {
                return Ok(Value::from(0));
            };
            let rest = number.rem_euclid(scale);
            let low = number - rest;
            let is_up = rest * 2 > scale || (rest * 2 == scale && low / scale % 2 != 0);
            Ok(from_int(if is_up { low + scale } else { low }))
        }
        ("common", None) => Ok(Value::from(round(float, precision))),
        ("ceil" | "floor", _) => {
            let exponent = i32::try_from(precision.clamp(-400, 400)).unwrap_or(0);
            let scale = 10_f64.powi(exponent);
            let scaled = float * scale;
            let whole = if method == "ceil" {
                scaled.ceil()
            } else {
                scaled.floor()
            };
            Ok(Value::from(whole / scale))
        }
        _ => Err(failure("method must be common, ceil or floor")),
    }
}
