//! Limits for templates, which are strangers' programs.
//!
//! `minijinja` counts instructions; what takes longer than an instruction, or makes something
//! large, is counted here. A template is rendered by one thread, so its budget is that thread's.

use std::cell::Cell;

use minijinja::{Error, ErrorKind};
use serde_json::Value;

use crate::Variables;

/// The deepest nesting of values.
pub(crate) const DEEPEST: usize = 250;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// How much a template may compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Instructions.
    pub(crate) steps: u64,
    /// Bytes that are read or written by operations; an element of a list counts as some bytes.
    bytes: u64,
}

impl Limits {
    /// The limits for a template that sees `variables`: far above what published templates need.
    pub(crate) fn for_input(variables: &Variables) -> Self {
        let size = variables.values().map(size).sum::<usize>() as u64;
        Self {
            steps: 2_000_000 + 50 * size,
            bytes: 500_000_000 + 1_000 * size,
        }
    }
}

/// About the number of bytes of `value`.
fn size(value: &Value) -> usize {
    16 + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(entries) => entries
            .iter()
            .map(|(name, value)| name.len() + size(value))
            .sum(),
        _ => 0,
    }
}

/// The budget of the template that this thread renders; it ends with this value.
pub(crate) struct Budget(());

impl Budget {
    pub(crate) fn start(limits: &Limits) -> Self {
        LEFT.set(limits.bytes);
        Self(())
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        LEFT.set(0);
    }
}

/// Takes `bytes` from the budget.
pub(crate) fn charge(bytes: usize) -> Result<(), Error> {
    let left = LEFT.get().checked_sub(bytes as u64);
    LEFT.set(left.unwrap_or(0));
    match left {
        Some(_) => Ok(()),
        None => Err(too_much("it computes or writes too much")),
    }
}

/// Takes `count` elements of lists from the budget.
pub(crate) fn charge_items(count: usize) -> Result<(), Error> {
    charge(count.saturating_mul(32))
}

/// Takes a comparison of two values from the budget, without what it reads of their texts.
pub(crate) fn charge_comparison() -> Result<(), Error> {
    charge(64)
}

/// The error of a template beyond a limit.
pub(crate) fn too_much(what: &str) -> Error {
    Error::new(ErrorKind::OutOfFuel, what.to_owned())
}
