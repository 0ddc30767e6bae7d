//! Filters of lists and dicts.

use std::cmp::Ordering;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::{Result, at_path, ignoring_case};
use crate::budget::{charge, charge_items};
use crate::error::failure;
use crate::python::arguments::Arguments;
use crate::python::compare::{Seen, order};
use crate::python::iterators::Generator;
use crate::python::operators::add;
use crate::python::print::str;
use crate::python::tuple::tuple;
use crate::python::{
    check_depth, elements, entries, is_dict, is_generator, is_sequence, type_name, view,
};

pub(super) const NAMES: [&str; 16] = [
    "batch", "count", "dictsort", "first", "items", "join", "last", "length", "list", "max", "min",
    "reverse", "slice", "sort", "sum", "unique",
];

pub(super) fn apply(
    _: &State<'_, '_>,
    name: &'static str,
    value: &Value,
    args: &[Value],
) -> Result {
    match name {
        "length" | "count" => {
            Arguments::bind(name, args, [])?;
            length(value)
        }
        "list" => {
            Arguments::bind(name, args, [])?;
            Ok(Value::from(elements(value)?))
        }
        "first" => {
            Arguments::bind(name, args, [])?;
            if let Some(generator) = value.downcast_object_ref::<Generator>() {
                return Ok(generator.next().unwrap_or_default());
            }
            Ok(elements(value)?.into_iter().next().unwrap_or_default())
        }
        "last" => {
            Arguments::bind(name, args, [])?;
            if is_generator(value) {
                return Err(failure("'generator' object is not reversible"));
            }
            Ok(elements(value)?.pop().unwrap_or_default())
        }
        "items" => {
            Arguments::bind(name, args, [])?;
            match value.kind() {
                ValueKind::Undefined => Ok(Generator::value(Vec::new())),
                _ if is_dict(value) => Ok(Generator::value(pairs(value)?)),
                _ => Err(failure("Can only get item pairs from a mapping.")),
            }
        }
        "reverse" => {
            Arguments::bind(name, args, [])?;
            if is_generator(value) {
                return Err(failure("'generator' object is not reversible"));
            }
            if let Some(text) = value.as_str() {
                return Ok(Value::from(text.chars().rev().collect::<String>()));
            }
            let mut elements = elements(value)?;
            elements.reverse();
            Ok(Generator::value(elements))
        }
        "join" => join(value, &Arguments::bind(name, args, ["d", "attribute"])?),
        "sum" => {
            let args = Arguments::bind(name, args, ["attribute", "start"])?;
            let mut sum = args.get(1).cloned().unwrap_or(Value::from(0));
            for element in elements(value)? {
                let element = match args.some(0) {
                    Some(path) => at_path(&element, path)?,
                    None => element,
                };
                sum = add(&sum, &element)?;
            }
            Ok(sum)
        }
        "min" | "max" => {
            let args = Arguments::bind(name, args, ["case_sensitive", "attribute"])?;
            extreme(name, elements(value)?, &args)
        }
        "sort" => {
            let args = Arguments::bind(name, args, ["reverse", "case_sensitive", "attribute"])?;
            let keyed = sort_keys(elements(value)?, &args)?;
            Ok(Value::from(sort(keyed, args.flag(0))?))
        }
        "dictsort" => dict_sort(
            value,
            &Arguments::bind(name, args, ["case_sensitive", "by", "reverse"])?,
        ),
        "unique" => {
            let args = Arguments::bind(name, args, ["case_sensitive", "attribute"])?;
            unique(elements(value)?, &args)
        }
        "batch" => {
            let args = Arguments::bind(name, args, ["linecount", "fill_with"])?;
            check_depth(value)?;
            batch(elements(value)?, &args)
        }
        _ => {
            let args = Arguments::bind(name, args, ["slices", "fill_with"])?;
            check_depth(value)?;
            slice(&elements(value)?, &args)
        }
    }
}

/// `len(value)`; an undefined value has none of anything.
fn length(value: &Value) -> Result {
    let length = match value.as_str() {
        Some(text) => text.chars().count(),
        None if is_dict(value) => value.len().unwrap_or(0),
        None if value.is_undefined() => 0,
        None if is_sequence(value) || view(value).is_some() => match value.len() {
            Some(length) => length,
            None => elements(value)?.len(),
        },
        None => {
            let found = type_name(value);
            return Err(failure(format!("object of type '{found}' has no len()")));
        }
    };
    Ok(Value::from(length))
}

fn pairs(dict: &Value) -> Result<Vec<Value>> {
    check_depth(dict)?;
    let entries = entries(dict)?.into_iter();
    Ok(entries.map(|(key, value)| tuple([key, value])).collect())
}

fn join(value: &Value, args: &Arguments<2>) -> Result {
    let separator = args.get(0).map(str).transpose()?.unwrap_or_default();
    let mut joined = String::new();
    for (index, element) in elements(value)?.into_iter().enumerate() {
        let element = match args.some(1) {
            Some(path) => at_path(&element, path)?,
            None => element,
        };
        if index > 0 {
            charge(separator.len())?;
            joined.push_str(&separator);
        }
        joined.push_str(&str(&element)?);
    }
    Ok(Value::from(joined))
}

/// The part of `element` to compare by.
fn key_of(element: &Value, path: Option<&Value>, is_case_sensitive: bool) -> Result {
    let key = match path {
        Some(path) => at_path(element, path)?,
        None => element.clone(),
    };
    Ok(if is_case_sensitive {
        key
    } else {
        ignoring_case(key)
    })
}

fn extreme(name: &str, elements: Vec<Value>, args: &Arguments<2>) -> Result {
    let (wanted, symbol) = match name {
        "min" => (Ordering::Less, "<"),
        _ => (Ordering::Greater, ">"),
    };
    let mut best: Option<(Value, Value)> = None;
    for element in elements {
        let key = key_of(&element, args.some(1), args.flag(0))?;
        let is_better = match &best {
            None => true,
            Some((best, _)) => order(symbol, &key, best)? == Some(wanted),
        };
        if is_better {
            best = Some((key, element));
        }
    }
    Ok(best.map(|(_, element)| element).unwrap_or_default())
}

/// The elements with the keys to sort them by: lists of the attributes with commas between them.
fn sort_keys(elements: Vec<Value>, args: &Arguments<3>) -> Result<Vec<(Value, Value)>> {
    let paths: Vec<Option<Value>> = match args.some(2) {
        Some(path) => match path.as_str() {
            Some(paths) => paths
                .split(',')
                .map(|path| Some(Value::from(path)))
                .collect(),
            None => vec![Some(path.clone())],
        },
        None => vec![None],
    };
    let mut keyed = Vec::with_capacity(elements.len());
    for element in elements {
        let keys = paths
            .iter()
            .map(|path| key_of(&element, path.as_ref(), args.flag(1)));
        let keys: Value = keys.collect::<Result<Vec<_>>>()?.into();
        keyed.push((keys, element));
    }
    Ok(keyed)
}

/// The values by their keys, those of equal keys in their order.
fn sort(mut keyed: Vec<(Value, Value)>, is_reversed: bool) -> Result<Vec<Value>> {
    let mut failed: Option<Error> = None;
    keyed.sort_by(|(a, _), (b, _)| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        let ordering = match order("<", a, b) {
            Ok(ordering) => ordering.unwrap_or(Ordering::Equal),
            Err(error) => {
                failed = Some(error);
                Ordering::Equal
            }
        };
        if is_reversed {
            ordering.reverse()
        } else {
            ordering
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, value)| value).collect()),
    }
}

fn dict_sort(value: &Value, args: &Arguments<3>) -> Result {
    let by_value = match args.text(1)? {
        None | Some("key") => false,
        Some("value") => true,
        Some(_) => return Err(failure("You can only sort by either \"key\" or \"value\"")),
    };
    if !is_dict(value) {
        return Err(failure(format!(
            "dictsort needs a dict, found '{}'",
            type_name(value)
        )));
    }
    check_depth(value)?;
    let mut keyed = Vec::new();
    for (key, value) in entries(value)? {
        let by = if by_value { &value } else { &key };
        keyed.push((key_of(by, None, args.flag(0))?, tuple([key, value])));
    }
    Ok(Value::from(sort(keyed, args.flag(2))?))
}

fn unique(elements: Vec<Value>, args: &Arguments<2>) -> Result {
    let mut seen = Seen::default();
    let mut kept = Vec::new();
    for element in elements {
        if seen.is_new(key_of(&element, args.some(1), args.flag(0))?)? {
            kept.push(element);
        }
    }
    Ok(Generator::value(kept))
}

fn batch(elements: Vec<Value>, args: &Arguments<2>) -> Result {
    args.required(0)?;
    let size = args.int(0)?.unwrap_or(0);
    // As in Jinja, which compares lengths, a size that is not positive never ends a batch.
    let size = usize::try_from(size).ok().filter(|&size| size > 0);
    let size = size.unwrap_or(usize::MAX);
    let mut batches = Vec::new();
    for chunk in elements.chunks(size) {
        let mut chunk = chunk.to_vec();
        let fill = args
            .some(1)
            .filter(|_| chunk.len() < size && size < usize::MAX);
        if let Some(fill) = fill {
            charge_items(size - chunk.len())?;
            chunk.resize(size, fill.clone());
        }
        batches.push(Value::from(chunk));
    }
    Ok(Generator::value(batches))
}

fn slice(elements: &[Value], args: &Arguments<2>) -> Result {
    args.required(0)?;
    let count = args.size(0, 0)?;
    if count == 0 {
        return Err(failure("division by zero"));
    }
    charge_items(count)?;
    let (per_slice, larger) = (elements.len() / count, elements.len() % count);
    let mut rest = elements;
    let mut slices = Vec::with_capacity(count);
    for number in 0..count {
        let (part, behind) = rest.split_at(per_slice + usize::from(number < larger));
        rest = behind;
        let mut part = part.to_vec();
        part.extend(args.some(1).filter(|_| number >= larger).cloned());
        slices.push(Value::from(part));
    }
    Ok(Generator::value(slices))
}
