//! Python's comparisons.

use std::cmp::Ordering;
use std::collections::HashSet;

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::iterators::ViewKind;
use super::{
    charge_whole, elements, entries, int, is_dict, is_sequence, is_tuple, number, type_name,
    unsupported, view,
};
use crate::budget::{DEEPEST, charge, charge_comparison, charge_items, too_much};
use crate::error::failure;

type Result<T> = std::result::Result<T, Error>;

/// The comparison `name` of `a` and `b`.
pub(crate) fn compare(name: &str, a: &Value, b: &Value) -> Result<bool> {
    Ok(match name {
        "==" => equal(a, b)?,
        "!=" => !equal(a, b)?,
        "in" => contains(b, a)?,
        "not in" => !contains(b, a)?,
        "<" => order(name, a, b)? == Some(Ordering::Less),
        "<=" => order(name, a, b)?.is_some_and(Ordering::is_le),
        ">" => order(name, a, b)? == Some(Ordering::Greater),
        _ => order(name, a, b)?.is_some_and(Ordering::is_ge),
    })
}

/// A chain such as `1 < x <= 3`: `rest` has names and values by turns.
pub(crate) fn chain(first: &Value, rest: &[Value]) -> Result<bool> {
    let mut left = first;
    for pair in rest.chunks_exact(2) {
        if !compare(pair[0].as_str().unwrap_or_default(), left, &pair[1])? {
            return Ok(false);
        }
        left = &pair[1];
    }
    Ok(true)
}

/// `a == b`.
pub(crate) fn equal(a: &Value, b: &Value) -> Result<bool> {
    equal_at(a, b, 0)
}

fn equal_at(a: &Value, b: &Value, depth: usize) -> Result<bool> {
    if depth > DEEPEST {
        return Err(too_much("it nests values too deeply"));
    }
    charge_comparison()?;
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        charge(if a.len() == b.len() { a.len() } else { 0 })?;
        return Ok(a == b);
    }
    if let (Some(a), Some(b)) = (int(a), int(b)) {
        return Ok(a == b);
    }
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(a == b);
    }
    if is_sequence(a) && is_sequence(b) {
        if is_tuple(a) != is_tuple(b) {
            return Ok(false);
        }
        let (a, b) = (elements(a)?, elements(b)?);
        if a.len() != b.len() {
            return Ok(false);
        }
        for (a, b) in a.iter().zip(&b) {
            if !equal_at(a, b, depth + 1)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if is_dict(a) && is_dict(b) {
        if a.len() != b.len() {
            return Ok(false);
        }
        for (key, value) in entries(a)? {
            let other = get(b, &key)?;
            match other {
                Some(other) if equal_at(&value, &other, depth + 1)? => {}
                _ => return Ok(false),
            }
        }
        return Ok(true);
    }
    for value in [a, b] {
        let is_list = is_sequence(value) || is_dict(value);
        if value.as_object().is_some() && !is_list && value.kind() != ValueKind::Plain {
            let found = type_name(value);
            return Err(failure(format!(
                "a {found} is compared, which is not supported"
            )));
        }
    }
    Ok(match (a.kind(), b.kind()) {
        (ValueKind::None, ValueKind::None) | (ValueKind::Undefined, ValueKind::Undefined) => true,
        (ValueKind::Plain, ValueKind::Plain) => a == b,
        _ => false,
    })
}

/// The entry of a dict; `True`, 1 and 1.0 are one key.
pub(crate) fn get(dict: &Value, key: &Value) -> Result<Option<Value>> {
    check_key(key)?;
    charge_whole(key)?;
    let found = dict.get_item(key)?;
    if !found.is_undefined() {
        return Ok(Some(found));
    }
    if key.as_str().is_some() {
        // An entry may be undefined itself.
        return Ok(contains_key(dict, key)?.then_some(found));
    }
    for (other, value) in entries(dict)? {
        if other.as_str().is_none() && equal(&other, key)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn contains_key(dict: &Value, key: &Value) -> Result<bool> {
    charge_items(1)?;
    let Some(object) = dict.as_object() else {
        return Ok(false);
    };
    Ok(object.get_value(key).is_some())
}

/// Lists and dicts cannot be keys.
pub(crate) fn check_key(key: &Value) -> Result<()> {
    if is_dict(key) || (is_sequence(key) && !is_tuple(key)) {
        return Err(failure(format!("unhashable type: '{}'", type_name(key))));
    }
    Ok(())
}

/// A set of keys, in which `True`, 1 and 1.0 are one.
#[derive(Default)]
pub(crate) struct Seen {
    texts: HashSet<Value>,
    wholes: HashSet<i64>,
    /// Few in practice: each is compared with all.
    others: Vec<Value>,
}

impl Seen {
    /// Adds a key; false if it is there already.
    pub(crate) fn is_new(&mut self, key: Value) -> Result<bool> {
        check_key(&key)?;
        charge_comparison()?;
        if let Some(text) = key.as_str() {
            charge(text.len())?;
            return Ok(self.texts.insert(key));
        }
        if let Some(whole) = whole(&key) {
            return Ok(self.wholes.insert(whole));
        }
        for other in &self.others {
            if equal(other, &key)? {
                return Ok(false);
            }
        }
        self.others.push(key);
        Ok(true)
    }
}

/// A number without a fraction, if all such numbers near it are floats as well as ints.
fn whole(value: &Value) -> Option<i64> {
    let number = number(value)?;
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

/// How `a` is to `b`; nothing for numbers of which one is none.
pub(crate) fn order(name: &str, a: &Value, b: &Value) -> Result<Option<Ordering>> {
    order_at(name, a, b, 0)
}

fn order_at(name: &str, a: &Value, b: &Value, depth: usize) -> Result<Option<Ordering>> {
    if depth > DEEPEST {
        return Err(too_much("it nests values too deeply"));
    }
    charge_comparison()?;
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        charge(a.len().min(b.len()))?;
        return Ok(Some(a.cmp(b)));
    }
    if let (Some(a), Some(b)) = (int(a), int(b)) {
        return Ok(Some(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(a.partial_cmp(&b));
    }
    if is_sequence(a) && is_sequence(b) && is_tuple(a) == is_tuple(b) {
        let (a, b) = (elements(a)?, elements(b)?);
        for (a, b) in a.iter().zip(&b) {
            if !equal_at(a, b, depth + 1)? {
                return order_at(name, a, b, depth + 1);
            }
        }
        return Ok(Some(a.len().cmp(&b.len())));
    }
    Err(unsupported(name, a, b))
}

/// `value in container`.
pub(crate) fn contains(container: &Value, value: &Value) -> Result<bool> {
    if let Some(text) = container.as_str() {
        let part = value.as_str().ok_or_else(|| {
            failure(format!(
                "'in <string>' requires string as left operand, not {}",
                type_name(value)
            ))
        })?;
        charge(text.len())?;
        return Ok(text.contains(part));
    }
    if is_dict(container) {
        return Ok(get(container, value)?.is_some());
    }
    if view(container) == Some(ViewKind::Keys) {
        check_key(value)?;
    }
    for element in elements(container)? {
        if equal(&element, value)? {
            return Ok(true);
        }
    }
    Ok(false)
}
