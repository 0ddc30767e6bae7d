//! What users can choose about schemes.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::grid::CodeSearch;

/// What a layer is loaded for. Some schemes compute with other values than they store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// To compute: the values that the scheme's own forward multiplies with.
    #[default]
    Forward,
    /// To write dense weights: the values that the scheme's own dequantization returns.
    Dequantize,
}

/// How to load layers.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// What the layers are for.
    pub purpose: Purpose,
    /// Options of single backends.
    pub backend: BackendOptions,
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

    /// A boolean option of a backend, false unless given.
    ///
    /// # Errors
    /// If the value is neither `true` nor `false`.
    pub fn flag(&self, backend: &str, key: &str) -> Result<bool> {
        let choices = [("false", false), ("true", true)];
        Ok(self.choice(backend, key, &choices)?.unwrap_or(false))
    }

    /// An option with some named values; `None` unless given.
    ///
    /// # Errors
    /// If the value is none of them.
    pub fn choice<T: Copy>(
        &self,
        backend: &str,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>> {
        let Some(value) = self.0.get(&(backend.to_owned(), key.to_owned())) else {
            return Ok(None);
        };
        let found = choices.iter().find(|(name, _)| name == value);
        found.map(|&(_, choice)| Some(choice)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
            Error::BackendOption {
                option: format!("{backend}.{key}={value}"),
                reason: format!("expected {}", names.join(" or ")),
            }
        })
    }
}

/// How to quantize a weight again.
#[derive(Clone)]
pub struct RequantizeOptions<'a> {
    /// Options of single backends.
    pub backend: BackendOptions,
    /// Chooses the codes once a scheme has chosen its scales.
    pub search: &'a dyn CodeSearch,
}
