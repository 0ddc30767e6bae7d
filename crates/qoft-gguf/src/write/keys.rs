//! Keys of a new file.

use std::borrow::Cow;

use crate::file::Value;

/// Keys and values in their order, as files have them.
#[derive(Default)]
pub struct NewKeys(Vec<Vec<u8>>);

impl NewKeys {
    /// Adds a value.
    pub fn put(&mut self, key: &str, value: Value) {
        let mut bytes = Vec::new();
        value.put(key, &mut bytes);
        self.0.push(bytes);
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, text: &str) {
        self.put(key, Value::String(text.to_owned()));
    }

    /// Adds a size.
    pub fn size(&mut self, key: &str, size: usize) {
        self.put(key, Value::Unsigned(size as u64));
    }

    /// Adds a number, which files have in single precision.
    pub fn float(&mut self, key: &str, value: f64) {
        self.put(key, Value::Float32(value as f32));
    }

    /// Adds a flag.
    pub fn flag(&mut self, key: &str, flag: bool) {
        self.put(key, Value::Bool(flag));
    }

    /// All of them.
    pub fn into_stored<'a>(self) -> Vec<Cow<'a, [u8]>> {
        self.0.into_iter().map(Cow::Owned).collect()
    }
}
