//! Filters that call a test or another filter for each element.

use minijinja::value::{Kwargs, Value};
use minijinja::{ErrorKind, State};

use super::{Result, at_path, elements_if_true};
use crate::budget::{charge, charge_items};
use crate::error::failure;
use crate::python::arguments::{Arguments, split};
use crate::python::iterators::Generator;
use crate::python::sized;

pub(super) const NAMES: [&str; 5] = ["map", "reject", "rejectattr", "select", "selectattr"];

pub(super) fn apply(state: &State<'_, '_>, name: &str, value: &Value, args: &[Value]) -> Result {
    let elements = elements_if_true(value)?;
    // Each call gets the element and all arguments.
    charge_items(elements.len().saturating_mul(1 + args.len()))?;
    let chosen = if name == "map" {
        map(state, elements, args)?
    } else {
        select(state, name, elements, args)?
    };
    Ok(Generator::value(chosen))
}

fn map(state: &State<'_, '_>, elements: Vec<Value>, args: &[Value]) -> Result<Vec<Value>> {
    let (positional, named) = split(args);
    let Some((name, rest)) = positional.split_first() else {
        let args = Arguments::bind("map", args, ["attribute", "default"])?;
        let path = args.required(0)?;
        let found = elements.iter().map(|element| {
            let found = at_path(element, path)?;
            Ok(match args.some(1) {
                Some(default) if found.is_undefined() => default.clone(),
                _ => found,
            })
        });
        return found.collect();
    };
    let name = name
        .as_str()
        .ok_or_else(|| failure("map needs the name of a filter"))?;
    let mut all = rest.to_vec();
    if !named.is_empty() {
        all.push(Kwargs::from_iter(named).into());
    }
    elements
        .into_iter()
        .map(|element| {
            charge(name.len())?;
            let args: Vec<Value> = [sized(element)?]
                .into_iter()
                .chain(all.iter().cloned())
                .collect();
            state.apply_filter(name, &args)
        })
        .collect()
}

fn select(
    state: &State<'_, '_>,
    name: &str,
    elements: Vec<Value>,
    args: &[Value],
) -> Result<Vec<Value>> {
    let mut args = args;
    let path = if name.ends_with("attr") {
        let missing = || failure(format!("{name} needs an attribute"));
        let (path, rest) = args.split_first().ok_or_else(missing)?;
        args = rest;
        Some(path)
    } else {
        None
    };
    let mut chosen = Vec::new();
    for element in elements {
        let tested = match path {
            Some(path) => at_path(&element, path)?,
            None => element.clone(),
        };
        let passes = match args.split_first() {
            None => tested.is_true(),
            Some((test, rest)) => {
                let test = test.as_str().ok_or_else(|| {
                    minijinja::Error::new(
                        ErrorKind::UnknownTest,
                        format!("{name} needs the name of a test"),
                    )
                })?;
                charge(test.len())?;
                let args: Vec<Value> = [sized(tested)?]
                    .into_iter()
                    .chain(rest.iter().cloned())
                    .collect();
                state.perform_test(test, &args)?
            }
        };
        if passes != name.starts_with("reject") {
            chosen.push(element);
        }
    }
    Ok(chosen)
}
