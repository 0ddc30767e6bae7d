//! Lists of modules as transformers' quantization configurations have them.

use fancy_regex::Regex;

use crate::error::{Error, Result};

/// Patterns of module paths. One matches a path if it is its end, or, as a regular expression,
/// its start up to the end of a component (transformers' `should_convert_module`): `q_proj` matches
/// every `q_proj`, `layers.1` only a path that begins so.
#[derive(Debug, Clone, Default)]
pub struct ModulePatterns(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    expression: Regex,
}

impl ModulePatterns {
    /// Reads patterns.
    ///
    /// # Errors
    /// If one is no regular expression.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let read = |text: &String| {
            let expression = Regex::new(&format!(r"^(?:{text})(?:(?<=\.)|(?=\.|$))"));
            Ok(Pattern {
                text: text.clone(),
                expression: expression.map_err(|e| wrong(text, e))?,
            })
        };
        patterns.iter().map(read).collect::<Result<_>>().map(Self)
    }

    /// The patterns that match none of these module paths.
    ///
    /// # Errors
    /// If an expression takes too long.
    pub fn without_match(&self, paths: &[&str]) -> Result<Vec<&str>> {
        let mut without = Vec::new();
        for pattern in &self.0 {
            let mut found = false;
            for path in paths {
                found = found || pattern.matches(path)?;
            }
            if !found {
                without.push(pattern.text.as_str());
            }
        }
        Ok(without)
    }

    /// Whether one of the patterns matches a module path.
    ///
    /// # Errors
    /// If an expression takes too long.
    pub fn matches(&self, path: &str) -> Result<bool> {
        for pattern in &self.0 {
            if pattern.matches(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Pattern {
    fn matches(&self, path: &str) -> Result<bool> {
        let Self { text, expression } = self;
        let found = expression.is_match(path).map_err(|e| wrong(text, e))?;
        Ok(found || path.ends_with(text))
    }
}

fn wrong(pattern: &str, reason: impl ToString) -> Error {
    Error::config("modules that stay dense").key(pattern, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_transformers() {
        let matches = |pattern: &str, path| {
            let patterns = ModulePatterns::new(&[pattern.to_owned()]).unwrap();
            patterns.matches(path).unwrap()
        };
        let path = "model.layers.11.mlp.gate_proj";
        for pattern in [
            "gate_proj",
            "mlp.gate_proj",
            "_proj",
            "model.layers.11",
            "model.layers.1.",
            r"model\.layers\.\d+",
            "model|lm_head",
            "model.layers.11.mlp.gate_proj",
        ] {
            assert!(matches(pattern, path), "{pattern}");
        }
        for pattern in ["model.layers.1", "layers.11", "mlp", "gate", "mlp.gate"] {
            assert!(!matches(pattern, path), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_match_nothing_are_known() {
        let patterns = ["q_proj", "k_porj", "lm_head"].map(str::to_owned);
        let patterns = ModulePatterns::new(&patterns).unwrap();
        let paths = ["model.layers.0.self_attn.q_proj", "lm_head"];
        assert_eq!(patterns.without_match(&paths).unwrap(), ["k_porj"]);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let error = ModulePatterns::new(&["(".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("`(`"), "{error}");
        assert!(!ModulePatterns::default().matches("x").unwrap());
    }
}
