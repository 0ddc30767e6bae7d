//! Fields of rows under other names.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::error::RowError;

/// Which field of a row stands for one that is known here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns(Vec<(String, String)>);

impl Columns {
    /// No other names.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Gives the fields of a row the names that are known here. What the row has under such a name
    /// is replaced.
    pub(super) fn apply(&self, fields: &mut Map<String, Value>) -> Result<(), RowError> {
        let mut renamed = Vec::with_capacity(self.0.len());
        for (name, source) in &self.0 {
            let Some(value) = fields.get(source) else {
                return Err(RowError::NoColumn {
                    column: source.clone(),
                    fields: fields.keys().cloned().collect(),
                });
            };
            renamed.push((name.clone(), value.clone()));
        }
        for (_, source) in &self.0 {
            fields.remove(source);
        }
        fields.extend(renamed);
        Ok(())
    }

    /// The pairs of a known name and the name in the data.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, source)| (&**name, &**source))
    }
}

impl FromStr for Columns {
    type Err = String;

    /// Reads `prompt=question,completion=answer`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut pairs = Vec::new();
        for pair in text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let names = pair.split_once('=');
            let names = names.map(|(name, source)| (name.trim(), source.trim()));
            match names {
                Some((name, source)) if !name.is_empty() && !source.is_empty() => {
                    pairs.push((name.to_owned(), source.to_owned()));
                }
                _ => {
                    return Err(format!(
                        "'{pair}' is not of the form NAME=COLUMN, as in \
                         prompt=question,completion=answer"
                    ));
                }
            }
        }
        Ok(Self(pairs))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_get_their_names_and_missing_ones_are_told() {
        let columns: Columns = "prompt=question, completion=answer".parse().unwrap();
        let mut row = json!({"question": "q", "answer": "a", "prompt": "old"});
        columns.apply(row.as_object_mut().unwrap()).unwrap();
        assert_eq!(row, json!({"prompt": "q", "completion": "a"}));
        let mut row = json!({"answer": "a"});
        let error = columns.apply(row.as_object_mut().unwrap()).unwrap_err();
        assert!(error.to_string().contains("no field question"), "{error}");
        // Two names may change places.
        let swapped: Columns = "prompt=completion,completion=prompt".parse().unwrap();
        let mut row = json!({"prompt": "a", "completion": "b"});
        swapped.apply(row.as_object_mut().unwrap()).unwrap();
        assert_eq!(row, json!({"prompt": "b", "completion": "a"}));
        assert!("prompt".parse::<Columns>().is_err());
    }
}
