//! Typed access to a quantization's configuration.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::json::read_json;
use crate::unfit::unfit;

/// How messages name the configuration inside `config.json`.
const INSIDE: &str = "quantization_config";

/// A configuration: an object of JSON whose values are read by key and type. Null counts as absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Keys {
    /// How messages name it.
    file: String,
    value: Value,
}

impl Keys {
    /// An object that messages call `file`. Anything else than an object has no keys.
    pub fn new(file: impl Into<String>, value: Value) -> Self {
        Self {
            file: file.into(),
            value,
        }
    }

    /// The `quantization_config` of `config.json`, or else what the first of `files` that is there
    /// holds. Where there is none of all this, no key is there.
    ///
    /// # Errors
    /// If a file cannot be read or is no JSON.
    pub fn quantization(checkpoint: &Checkpoint, files: &[&str]) -> Result<Self> {
        if let Some(inside) = checkpoint.quantization_config() {
            return Ok(Self::new(INSIDE, inside.clone()));
        }
        let files = files.iter().map(|name| (name, checkpoint.dir().join(name)));
        match files.into_iter().find(|(_, path)| path.is_file()) {
            Some((name, path)) => Ok(Self::new(*name, read_json(&path)?)),
            None => Ok(Self::new(INSIDE, Value::Null)),
        }
    }

    /// All of it; `None` where there is no configuration at all.
    pub fn all(&self) -> Option<&Value> {
        Some(&self.value).filter(|value| !value.is_null())
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// The scheme that the configuration names, in lower case.
    pub fn method(&self) -> Option<String> {
        let named = |key| self.value(key).and_then(Value::as_str);
        let method = named("quant_method").or_else(|| named("method"))?;
        Some(method.to_lowercase())
    }

    /// Whether the configuration names another scheme than these. It need not name any.
    pub fn is_of_another(&self, methods: &[&str]) -> bool {
        let method = self.method();
        method.is_some_and(|method| !methods.contains(&method.as_str()))
    }

    /// A value of some type.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|e| match unfit(&e) {
                    Some(reason) => self.error(key, reason),
                    None => self.error(key, &e).caused_by(e),
                }),
        }
    }

    /// A flag.
    ///
    /// # Errors
    /// If it is no boolean.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// The first of several spellings of a key that is there, with its value.
    ///
    /// # Errors
    /// If that is of another type.
    pub fn first<'a, T: DeserializeOwned>(&self, keys: &[&'a str]) -> Result<Option<(&'a str, T)>> {
        for &key in keys {
            if let Some(value) = self.get(key)? {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    /// How many weights share a scale, under the first of several keys: -1 in the file stands for
    /// all of a row, which is [`usize::MAX`] here.
    ///
    /// # Errors
    /// If it is neither -1 nor a positive integer.
    pub fn group_size(&self, keys: &[&str]) -> Result<Option<usize>> {
        match self.first::<i64>(keys)? {
            None => Ok(None),
            Some((_, -1)) => Ok(Some(usize::MAX)),
            Some((key, size)) => match usize::try_from(size) {
                Ok(size) if size > 0 => Ok(Some(size)),
                _ => {
                    let reason = format!("expected -1 or more than 0, found {size}");
                    Err(self.error(key, reason))
                }
            },
        }
    }

    /// A [group size](Self::group_size) as configurations have it.
    pub fn written_group_size(size: usize) -> Value {
        match size {
            usize::MAX => (-1).into(),
            size => size.into(),
        }
    }

    /// One of some named values, in any case; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is none of them.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.get::<String>(key)? else {
            return Ok(None);
        };
        let found = choices
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&value));
        found.map(|&(_, choice)| Some(choice)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
            self.error(
                key,
                format!("expected {}, found {value}", names.join(" or ")),
            )
        })
    }

    /// The object under a key, whose own keys messages name with this one and a dot before them.
    pub fn object(&self, key: &str) -> Option<Self> {
        let value = self.value(key)?;
        value.is_object().then(|| Self {
            file: format!("{}.{key}", self.file),
            value: value.clone(),
        })
    }

    /// All keys and values, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        let map = self.value.as_object().into_iter().flatten();
        map.map(|(key, value)| (key.as_str(), value))
    }

    /// An error about a key.
    pub fn error(&self, key: &str, reason: impl ToString) -> Error {
        Error::config(self.file.clone()).key(key, reason)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(value: Value) -> Keys {
        Keys::new("config", value)
    }

    #[test]
    fn values_have_types_and_null_is_none() {
        let keys = keys(json!({"a": 4, "b": null, "c": "Two", "d": {"e": "x"}, "f": 300}));
        assert_eq!(keys.get::<usize>("a").unwrap(), Some(4));
        assert_eq!(keys.get::<usize>("b").unwrap(), None);
        assert_eq!(keys.first::<u8>(&["x", "b", "a"]).unwrap(), Some(("a", 4)));
        assert_eq!(
            keys.choice("c", &[("one", 1), ("two", 2)]).unwrap(),
            Some(2)
        );
        let error = keys.choice("c", &[("one", 1), ("three", 3)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "config: `c`: expected one or three, found Two"
        );
        let inner = keys.object("d").unwrap().get::<u8>("e").unwrap_err();
        let text = "config.d: `e`: expected a whole number of 0 or more, found \"x\"";
        assert_eq!(inner.to_string(), text);
        let error = keys.get::<Vec<String>>("d").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("expected a list, found an object")
        );
        let error = keys.get::<u8>("f").unwrap_err();
        assert!(error.to_string().ends_with("0 or more, found 300"));
        assert!(keys.object("a").is_none() && keys.get::<String>("a").is_err());
    }

    #[test]
    fn group_sizes_are_positive_or_all() {
        let size = |value| {
            keys(json!({"q_group_size": value})).group_size(&["group_size", "q_group_size"])
        };
        assert_eq!(size(json!(64)).unwrap(), Some(64));
        assert_eq!(size(json!(-1)).unwrap(), Some(usize::MAX));
        assert_eq!(size(json!(null)).unwrap(), None);
        for written in [json!(64), json!(-1)] {
            let size = size(written.clone()).unwrap().unwrap();
            assert_eq!(Keys::written_group_size(size), written);
        }
        for wrong in [json!(0), json!(-2), json!(1.5), json!("x")] {
            assert!(
                size(wrong)
                    .unwrap_err()
                    .to_string()
                    .contains("`q_group_size`")
            );
        }
    }

    #[test]
    fn the_method_has_two_names_and_any_case() {
        assert_eq!(
            keys(json!({"quant_method": "AWQ"})).method().as_deref(),
            Some("awq")
        );
        assert_eq!(
            keys(json!({"method": "gptq"})).method().as_deref(),
            Some("gptq")
        );
        assert_eq!(keys(Value::Null).method(), None);
        let awq = keys(json!({"quant_method": "AWQ"}));
        assert!(awq.is_of_another(&["gptq"]) && !awq.is_of_another(&["gptq", "awq"]));
        assert!(!keys(json!({"bits": 4})).is_of_another(&["gptq"]));
        assert_eq!(keys(Value::Null).all(), None);
    }
}
