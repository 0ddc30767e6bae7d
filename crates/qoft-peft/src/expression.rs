//! Regular expressions of a configuration.

use fancy_regex::{Captures, Regex};
use qoft_core::{Error, Result};

use crate::python::translate;

/// A compiled expression; its errors name the key that it comes from.
#[derive(Debug)]
pub(crate) struct Expression {
    regex: Regex,
    text: String,
    key: &'static str,
}

impl Expression {
    /// One that is to match a path from its first character to its last: `re.fullmatch`.
    pub fn full(text: &str, key: &'static str) -> Result<Self> {
        Self::new(text, key, r"\z")
    }

    /// One that is to match from the first character on: `re.match`.
    pub fn prefix(text: &str, key: &'static str) -> Result<Self> {
        Self::new(text, key, "")
    }

    fn new(text: &str, key: &'static str, end: &str) -> Result<Self> {
        let compiled = translate(text).and_then(|pattern| {
            Regex::new(&format!(r"\A{pattern}{end}")).map_err(|error| error.to_string())
        });
        let regex = compiled.map_err(|error| {
            let reason = format!("`{text}` is no regular expression: {error}");
            Error::config("adapter configuration").key(key, reason)
        })?;
        Ok(Self {
            regex,
            text: text.to_owned(),
            key,
        })
    }

    /// Whether it matches.
    ///
    /// # Errors
    /// If the engine gives up, since there are too many ways to try.
    pub fn is_match(&self, path: &str) -> Result<bool> {
        self.regex
            .is_match(path)
            .map_err(|e| self.gives_up(path, &e))
    }

    /// What its groups match; `None` if it does not match.
    ///
    /// # Errors
    /// As [`Self::is_match`].
    pub fn captures<'a>(&self, path: &'a str) -> Result<Option<Captures<'a>>> {
        self.regex
            .captures(path)
            .map_err(|e| self.gives_up(path, &e))
    }

    fn gives_up(&self, path: &str, error: &fancy_regex::Error) -> Error {
        let reason = format!(
            "`{}` cannot be matched with `{path}`: {error}; write a simpler expression, or a list \
             of names",
            self.text
        );
        Error::config("adapter configuration").key(self.key, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialect_is_pythons() {
        let full = |pattern: &str, text: &str| {
            let compiled = Expression::full(pattern, "target_modules").unwrap();
            compiled.is_match(text).unwrap()
        };
        assert!(full(r"[[:digit:]]", ":]"));
        assert!(full(r"a{,2}", "aa") && full(r"a{b", "a{b") && full(r"a{}", "a{}"));
        assert!(full("(?x) a b # c\n c", "abc") && full(r"(?x:a b)c d", "abc d"));
        assert!(full(r"(?i)AB", "ab") && full(r"(?i:A)b", "ab") && !full(r"(?i:A)B", "ab"));
        assert!(full(r"(.)\1b\Z", "aab") && full(r"\141\x62[\b\-]", "ab-"));
        assert!(full(r"[a&&b]+", "a&b") && full(r"[]^-]*", "]^-") && full("a b", "a b"));
        for wrong in [
            "a**", "*a", "(a", "a)", r"\p{L}", "(?<n>a)", "a(?i)b", "[a", "^*", r"a\",
        ] {
            assert!(Expression::full(wrong, "k").is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_expression_that_takes_too_long_is_an_error() {
        let slow = Expression::full(r"(?:(a*)*\1)*b", "exclude_modules").unwrap();
        let error = slow.is_match(&"a".repeat(60)).unwrap_err().to_string();
        assert!(
            error.contains("exclude_modules") && error.contains("simpler"),
            "{error}"
        );
    }
}
