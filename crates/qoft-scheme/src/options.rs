//! What users can choose about schemes.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// What a layer is loaded for. Some schemes compute with other values than they store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Purpose {
    /// To compute: the values that the scheme's own forward multiplies with.
    #[default]
    Forward,
    /// To write dense weights: the values that the scheme's own dequantization returns.
    Dequantize,
}

/// Options of backends, given as `BACKEND.KEY=VALUE`.
#[derive(Debug, Clone, Default)]
pub struct BackendOptions(BTreeMap<(String, String), String>);

impl BackendOptions {
    /// Parses `BACKEND.KEY=VALUE` strings.
    ///
    /// # Errors
    /// If one has another form.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self> {
        let parse = |option: &str| {
            let (name, value) = option.split_once('=')?;
            let (backend, key) = name.split_once('.')?;
            Some(((backend.to_owned(), key.to_owned()), value.to_owned()))
        };
        let pairs = options.iter().map(|option| {
            parse(option.as_ref()).ok_or_else(|| Error::BackendOption {
                option: option.as_ref().to_owned(),
                reason: "expected BACKEND.KEY=VALUE".into(),
            })
        });
        pairs.collect::<Result<_>>().map(Self)
    }

    /// All options: backend, key and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let entries = self.0.iter();
        entries.map(|((backend, key), value)| (backend.as_str(), key.as_str(), value.as_str()))
    }

    /// Those of one backend.
    pub fn of(&self, backend: &'static str) -> SchemeOptions<'_> {
        SchemeOptions { backend, all: self }
    }
}

/// The options of one backend.
#[derive(Debug, Clone, Copy)]
pub struct SchemeOptions<'a> {
    backend: &'static str,
    all: &'a BackendOptions,
}

impl SchemeOptions<'_> {
    /// A boolean option, false unless given.
    ///
    /// # Errors
    /// If the value is neither `true` nor `false`.
    pub fn flag(&self, key: &str) -> Result<bool> {
        let choices = [("false", false), ("true", true)];
        Ok(self.choice(key, &choices)?.unwrap_or(false))
    }

    /// An option with some named values; `None` unless given.
    ///
    /// # Errors
    /// If the value is none of them.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let name = (self.backend.to_owned(), key.to_owned());
        let Some(value) = self.all.0.get(&name) else {
            return Ok(None);
        };
        let found = choices.iter().find(|(name, _)| name == value);
        found.map(|&(_, choice)| Some(choice)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
            Error::BackendOption {
                option: format!("{}.{key}={value}", self.backend),
                reason: format!("expected {}", names.join(" or ")),
            }
        })
    }
}
