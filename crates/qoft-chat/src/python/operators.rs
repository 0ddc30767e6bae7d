//! Python's operators.

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::print::str;
use super::tuple::tuple;
use super::{
    elements, format, from_int, int, is_sequence, is_tuple, number, type_name, unsupported,
};
use crate::budget::{charge, charge_items};
use crate::error::failure;

type Result<T = Value> = std::result::Result<T, Error>;

/// `a + b`.
pub(crate) fn add(a: &Value, b: &Value) -> Result {
    if let (Some(a), Some(b)) = (plain_text(a)?, plain_text(b)?) {
        charge(a.len() + b.len())?;
        return Ok(Value::from([a, b].concat()));
    }
    if is_sequence(a) && is_sequence(b) && is_tuple(a) == is_tuple(b) {
        let mut both = elements(a)?;
        both.extend(elements(b)?);
        return Ok(sequence_like(a, both));
    }
    arithmetic("+", a, b, i128::checked_add, |a, b| a + b)
}

/// `a - b`.
pub(crate) fn subtract(a: &Value, b: &Value) -> Result {
    arithmetic("-", a, b, i128::checked_sub, |a, b| a - b)
}

/// `a * b`.
pub(crate) fn multiply(a: &Value, b: &Value) -> Result {
    let is_repeated = |value: &Value| value.kind() == ValueKind::String || is_sequence(value);
    let (repeated, count) = match (is_repeated(a), is_repeated(b)) {
        (true, false) => (a, b),
        (false, true) => (b, a),
        _ => return arithmetic("*", a, b, i128::checked_mul, |a, b| a * b),
    };
    let count = int(count).ok_or_else(|| unsupported("*", a, b))?.max(0);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if let Some(text) = repeated.as_str() {
        charge(text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(count)));
    }
    let elements = elements(repeated)?;
    charge_items(elements.len().saturating_mul(count))?;
    let all = elements.iter().cycle().take(elements.len() * count);
    Ok(sequence_like(repeated, all.cloned().collect()))
}

/// `a / b`.
pub(crate) fn divide(a: &Value, b: &Value) -> Result {
    let (x, y) = numbers("/", a, b)?;
    if y == 0.0 {
        return Err(failure("division by zero"));
    }
    Ok(Value::from(x / y))
}

/// `a // b`, rounded down.
pub(crate) fn floor_divide(a: &Value, b: &Value) -> Result {
    if let (Some(x), Some(y)) = (int(a), int(b)) {
        let quotient = x
            .checked_div(y)
            .ok_or_else(|| failure("division by zero"))?;
        let is_off = x % y != 0 && (x < 0) != (y < 0);
        return Ok(from_int(quotient - i128::from(is_off)));
    }
    let (x, y) = numbers("//", a, b)?;
    if y == 0.0 {
        return Err(failure("division by zero"));
    }
    Ok(Value::from(float_divide(x, y).0))
}

/// `a % b`: a text is formatted, a number's remainder has the sign of `b`.
pub(crate) fn remainder(a: &Value, b: &Value) -> Result {
    if let Some(text) = plain_text(a)? {
        return format::percent(text, b).map(Value::from);
    }
    if let (Some(x), Some(y)) = (int(a), int(b)) {
        let rest = x
            .checked_rem(y)
            .ok_or_else(|| failure("division by zero"))?;
        let is_off = rest != 0 && (rest < 0) != (y < 0);
        return Ok(from_int(if is_off { rest + y } else { rest }));
    }
    let (x, y) = numbers("%", a, b)?;
    if y == 0.0 {
        return Err(failure("division by zero"));
    }
    Ok(Value::from(float_divide(x, y).1))
}

/// `divmod(x, y)` as CPython computes it, with its signs of zeros.
fn float_divide(x: f64, y: f64) -> (f64, f64) {
    let mut rest = x % y;
    let mut quotient = (x - rest) / y;
    if rest == 0.0 {
        rest = 0.0_f64.copysign(y);
    } else if (rest < 0.0) != (y < 0.0) {
        rest += y;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0.0_f64.copysign(x / y), rest);
    }
    let floor = quotient.floor();
    let is_off = quotient - floor > 0.5;
    (if is_off { floor + 1.0 } else { floor }, rest)
}

/// `a ** b`.
pub(crate) fn power(a: &Value, b: &Value) -> Result {
    if let (Some(x), Some(y)) = (int(a), int(b))
        && y >= 0
    {
        let power = u32::try_from(y).ok().and_then(|y| x.checked_pow(y));
        return power.map(from_int).ok_or_else(|| too_large("**"));
    }
    let (x, y) = numbers("**", a, b)?;
    let power = x.powf(y);
    if (power.is_nan() && !x.is_nan() && !y.is_nan()) || (x == 0.0 && y < 0.0) {
        return Err(failure("this power is no real number"));
    }
    if power.is_infinite() && x.is_finite() && y.is_finite() {
        return Err(too_large("**"));
    }
    Ok(Value::from(power))
}

/// `-a`.
pub(crate) fn negate(a: &Value) -> Result {
    match (int(a), number(a)) {
        (Some(a), _) => Ok(from_int(-a)),
        (_, Some(a)) => Ok(Value::from(-a)),
        _ => Err(failure(format!("bad operand for -: '{}'", type_name(a)))),
    }
}

/// `a ~ b`.
pub(crate) fn concatenate(a: &Value, b: &Value) -> Result {
    let (mut text, behind) = (str(a)?, str(b)?);
    text.push_str(&behind);
    Ok(Value::from(text))
}

/// A text that the filter `safe` did not mark: Jinja escapes what is added to marked text by `+`.
pub(crate) fn plain_text(value: &Value) -> Result<Option<&str>> {
    if value.is_safe() {
        return Err(failure(
            "text that is marked as safe is combined, which is not supported",
        ));
    }
    Ok(value.as_str())
}

/// `elements` as a value of the type of `other`.
pub(crate) fn sequence_like(other: &Value, elements: Vec<Value>) -> Value {
    if is_tuple(other) {
        tuple(elements)
    } else {
        Value::from(elements)
    }
}

fn arithmetic(
    name: &str,
    a: &Value,
    b: &Value,
    of_ints: impl Fn(i128, i128) -> Option<i128>,
    of_floats: impl Fn(f64, f64) -> f64,
) -> Result {
    if let (Some(a), Some(b)) = (int(a), int(b)) {
        return of_ints(a, b).map(from_int).ok_or_else(|| too_large(name));
    }
    let (a, b) = numbers(name, a, b)?;
    Ok(Value::from(of_floats(a, b)))
}

fn numbers(name: &str, a: &Value, b: &Value) -> Result<(f64, f64)> {
    number(a)
        .zip(number(b))
        .ok_or_else(|| unsupported(name, a, b))
}

fn too_large(name: &str) -> Error {
    failure(format!("the result of {name} is too large"))
}
