//! Typed access to the keys of `config.json`.

use qoft_core::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// More than any model has; keeps products of two sizes inside `usize`.
const LARGEST: usize = i32::MAX as usize;

/// An object of `config.json`.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    value: &'a Value,
    /// Path of the object inside the file, with a dot at the end; empty at the root.
    prefix: &'static str,
}

impl<'a> Object<'a> {
    /// The whole file.
    pub fn root(value: &'a Value) -> Self {
        Self { value, prefix: "" }
    }

    /// The object under `key`, if there is one; null and `{}` count as none, as in transformers.
    /// `prefix` is `key` with a dot behind it: errors about the object's keys have it before them.
    ///
    /// # Errors
    /// If there is something else.
    pub fn object(&self, key: &str, prefix: &'static str) -> Result<Option<Self>> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) if map.is_empty() => Ok(None),
            Some(value @ Value::Object(_)) => Ok(Some(Self { value, prefix })),
            Some(_) => Err(self.error(key, "expected an object")),
        }
    }

    /// As [`Self::object`], of a key that has to be there, such as the text part of a whole model.
    ///
    /// # Errors
    /// If it is missing, or there is something else.
    pub fn require_object(&self, key: &str, prefix: &'static str) -> Result<Self> {
        let found = self.object(key, prefix)?;
        found.ok_or_else(|| self.error(key, "is missing"))
    }

    /// A copy with the values of `defaults` for keys that it does not have, even as null. Seen as
    /// [`Self::with_value`], errors about it name the same place.
    pub fn over(&self, defaults: Value) -> Value {
        let mut all = defaults;
        if let (Some(all), Some(own)) = (all.as_object_mut(), self.value.as_object()) {
            all.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        all
    }

    /// Another value in the place of this one.
    pub fn with_value<'b>(&self, value: &'b Value) -> Object<'b> {
        let prefix = self.prefix;
        Object { value, prefix }
    }

    /// Keys whose values are objects.
    pub fn nested(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let map = self.value.as_object().into_iter().flatten();
        map.filter(|(_, v)| v.is_object()).map(|(k, _)| k.as_str())
    }

    /// Whether the key is there, even as null.
    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    /// A value; null counts as absent.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|e| self.error(key, e)),
        }
    }

    /// A value that must be there.
    ///
    /// # Errors
    /// If it is absent or of another type.
    pub fn require<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.get(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    /// A flag, false unless given.
    ///
    /// # Errors
    /// If it is no flag.
    pub fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.get(key)?.unwrap_or(false))
    }

    /// A size from 1 on, if given.
    ///
    /// # Errors
    /// If it is no number, 0 or larger than any model's.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        match self.get::<usize>(key)? {
            Some(size) if size == 0 || size > LARGEST => {
                Err(self.error(key, format!("must lie in 1..={LARGEST}, found {size}")))
            }
            size => Ok(size),
        }
    }

    /// A size that must be there.
    ///
    /// # Errors
    /// As [`Self::size`], or if it is absent.
    pub fn require_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    /// A positive number, if given.
    ///
    /// # Errors
    /// If it is none.
    pub fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.get::<f64>(key)? {
            Some(number) if number <= 0.0 => {
                Err(self.error(key, format!("must be positive, found {number}")))
            }
            number => Ok(number),
        }
    }

    /// A positive number that must be there.
    ///
    /// # Errors
    /// As [`Self::positive`], or if it is absent.
    pub fn require_positive(&self, key: &str) -> Result<f64> {
        self.positive(key)?
            .ok_or_else(|| self.error(key, "is missing"))
    }

    /// A word out of `choices`, which give its meaning; nothing if it is absent.
    ///
    /// # Errors
    /// If it is another one: what changes numbers and is not implemented must not be ignored. The
    /// error lists the words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(word) = self.get::<String>(key)? else {
            return Ok(None);
        };
        match choices.iter().find(|(known, _)| *known == word) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(self.unsupported(key, &word, choices.iter().map(|(known, _)| *known))),
        }
    }

    /// The error about a word that is none of those that are known.
    pub fn unsupported<'b>(
        &self,
        key: &str,
        word: &str,
        known: impl IntoIterator<Item = &'b str>,
    ) -> Error {
        let known: Vec<&str> = known.into_iter().collect();
        let known = known.join(", ");
        self.error(
            key,
            format!("`{word}` is not supported; supported are {known}"),
        )
    }

    /// Warns of rates of dropout: they change training only, and adapters have their own, so the
    /// model is usable without them.
    ///
    /// # Errors
    /// If one is no number.
    pub fn warn_of_dropout(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            if let Some(rate) = self.get::<f64>(key)?.filter(|&rate| rate != 0.0) {
                tracing::warn!("config.json: `{key}` of {rate} is ignored: it is not implemented");
            }
        }
        Ok(())
    }

    /// An error about a key of this object.
    pub fn error(&self, key: &str, reason: impl ToString) -> Error {
        Error::config("config.json").key(format!("{}{key}", self.prefix), reason)
    }
}
