//! Which modules an entry of `targets` or `ignore` means.

use fancy_regex::Regex;
use qoft_scheme::{Keys, Result};

/// What a regular expression begins with.
const EXPRESSION: &str = "re:";
/// Names of the classes that a linear layer has in PyTorch.
const CLASSES: [&str; 2] = ["Linear", "Module"];

/// An entry.
#[derive(Debug, Clone)]
pub struct Target {
    /// As it stands in the file.
    text: String,
    /// Set where it is an expression, which has to match from the start of a path on.
    expression: Option<Regex>,
}

/// How well an entry fits, best first: names before expressions, these before classes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The whole path.
    Name,
    /// An expression; of several, the first in the order of the alphabet counts.
    Expression(String),
    /// The name of the layer's class.
    Class,
}

impl Target {
    /// Reads the entries under a key.
    ///
    /// # Errors
    /// If they are no list of names, or an expression is wrong.
    pub fn read(keys: &Keys, key: &str) -> Result<Vec<Self>> {
        let entries = keys.get::<Vec<String>>(key)?.unwrap_or_default();
        let read = |text: String| {
            let expression = text.strip_prefix(EXPRESSION).map(|pattern| {
                // Python's `re.match`: from the start, to anywhere.
                let found = Regex::new(&format!("^(?:{pattern})"));
                found.map_err(|e| keys.error(key, format!("`{text}`: {e}")))
            });
            let expression = expression.transpose()?;
            Ok(Self { text, expression })
        };
        entries.into_iter().map(read).collect()
    }

    /// How it fits the linear layer at a path; `None` if it means other modules.
    ///
    /// # Errors
    /// If an expression takes too long.
    pub fn fit(&self, keys: &Keys, path: &str) -> Result<Option<Fit>> {
        let Some(expression) = &self.expression else {
            let class = CLASSES.contains(&self.text.as_str());
            return Ok(match self.text == path {
                true => Some(Fit::Name),
                false => class.then_some(Fit::Class),
            });
        };
        let found = expression.is_match(path);
        let found = found.map_err(|e| keys.error("targets", format!("`{}`: {e}", self.text)))?;
        Ok(found.then(|| Fit::Expression(self.text.clone())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fit(target: &str, path: &str) -> Option<Fit> {
        let keys = Keys::new("c", json!({"targets": [target]}));
        let targets = Target::read(&keys, "targets").unwrap();
        targets[0].fit(&keys, path).unwrap()
    }

    #[test]
    fn names_are_whole_and_expressions_begin_where_paths_do() {
        let path = "model.layers.0.mlp.up_proj";
        assert_eq!(fit(path, path), Some(Fit::Name));
        assert_eq!(fit("up_proj", path), None);
        assert_eq!(fit("Linear", path), Some(Fit::Class));
        assert_eq!(fit("Embedding", path), None);
        assert!(matches!(
            fit("re:.*up_proj$", path),
            Some(Fit::Expression(_))
        ));
        assert!(matches!(
            fit("re:model.layers", path),
            Some(Fit::Expression(_))
        ));
        assert_eq!(fit("re:up_proj", path), None);
        assert_eq!(fit("re:lm_head", "model.lm_head"), None);
        assert!(Fit::Name < Fit::Expression("re:a".into()));
        assert!(Fit::Expression("re:a".into()) < Fit::Expression("re:b".into()));
        assert!(Fit::Expression("re:z".into()) < Fit::Class);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for targets in [json!(["re:("]), json!("Linear"), json!([1])] {
            let keys = Keys::new("c", json!({ "targets": targets }));
            let error = Target::read(&keys, "targets").unwrap_err().to_string();
            assert!(error.contains("`targets`"), "{error}");
        }
    }
}
