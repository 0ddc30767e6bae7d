//! The metadata of a file, by key and type.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use qoft_scheme::{Error, Result};

use super::cursor::Cursor;
use super::value::Value;

/// Keys and values.
#[derive(Debug, Clone)]
pub struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
    /// Keys in the order of the file, with where they and their values stand.
    places: Vec<(String, Range<usize>)>,
}

impl Metadata {
    pub(super) fn read(path: &Path, file: &mut Cursor, count: usize) -> Result<Self> {
        let (mut values, mut places) = (BTreeMap::new(), Vec::new());
        for _ in 0..count {
            let start = file.position();
            let key = file.string()?.to_owned();
            let value = Value::read(file)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(file.error(format!("the key `{key}` is there twice")));
            }
            places.push((key, start..file.position()));
        }
        Ok(Self {
            path: path.to_owned(),
            values,
            places,
        })
    }

    /// Keys with the bytes in which they and their values stand in the file of these bytes.
    pub fn stored<'a>(&'a self, file: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let places = self.places.iter();
        places.map(|(key, place)| (key.as_str(), &file[place.clone()]))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else {
            return Ok(None);
        };
        let read = read(value).map(Some);
        read.ok_or_else(|| self.error(key, format!("expected {expected}, found {}", shown(value))))
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A flag.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a boolean", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A number that counts something.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a size", |value| match value {
            Value::Unsigned(value) => usize::try_from(*value).ok(),
            Value::Signed(value) => usize::try_from(*value).ok(),
            _ => None,
        })
    }

    /// A number that counts something, also where there is one for each layer, all the same.
    pub fn same_size(&self, key: &str) -> Result<Option<usize>> {
        let same = |all: &[usize]| match all {
            [] => None,
            [first, rest @ ..] => rest.iter().all(|size| size == first).then_some(*first),
        };
        self.typed(key, "a size that all layers share", |value| match value {
            Value::Unsigned(value) => usize::try_from(*value).ok(),
            Value::Signed(value) => usize::try_from(*value).ok(),
            Value::Unsigneds(all) => {
                let all = all.iter().map(|size| usize::try_from(*size).ok());
                same(&all.collect::<Option<Vec<_>>>()?)
            }
            Value::Signeds(all) => {
                let all = all.iter().map(|size| usize::try_from(*size).ok());
                same(&all.collect::<Option<Vec<_>>>()?)
            }
            _ => None,
        })
    }

    /// A float, as the shortest decimal number that is the one of the file.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite number", |value| match value {
            Value::Float32(value) => value
                .to_string()
                .parse()
                .ok()
                .filter(|v: &f64| v.is_finite()),
            Value::Float64(value) => Some(*value).filter(|value| value.is_finite()),
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            _ => None,
        })
    }

    /// Texts.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Strings(texts) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// Integers.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.typed(key, "an array of integers", |value| match value {
            Value::Signeds(all) => Some(all.clone()),
            Value::Unsigneds(all) => all.iter().map(|v| i64::try_from(*v).ok()).collect(),
            _ => None,
        })
    }

    /// Floats.
    pub fn floats(&self, key: &str) -> Result<Option<&[f64]>> {
        self.typed(key, "an array of floats", |value| match value {
            Value::Floats(all) => Some(all.as_slice()),
            _ => None,
        })
    }

    /// The value that a key must have.
    ///
    /// # Errors
    /// If there is none.
    pub fn require<T>(&self, key: &str, value: Result<Option<T>>) -> Result<T> {
        value?.ok_or_else(|| self.error(key, "is missing"))
    }

    /// An error about a key.
    pub fn error(&self, key: &str, reason: impl ToString) -> Error {
        Error::config(self.path.display().to_string()).key(key, reason)
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Strings(all) => format!("{} strings", all.len()),
        Value::Signeds(all) => format!("{} numbers", all.len()),
        Value::Unsigneds(all) => format!("{} numbers", all.len()),
        Value::Floats(all) => format!("{} floats", all.len()),
        Value::Bools(all) => format!("{} booleans", all.len()),
        other => format!("{other:?}").chars().take(80).collect(),
    }
}
