//! Regular expressions of a configuration.

use std::collections::HashMap;

use fancy_regex::Regex;
use qoft_core::{Error, Result};

use crate::python::translate;

/// A compiled expression; its errors name the key that it comes from.
#[derive(Debug)]
pub(crate) struct Expression {
    regex: Regex,
    /// Numbers of the groups that have names.
    names: HashMap<String, usize>,
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
        let compiled = translate(text).and_then(|translated| {
            let regex = Regex::new(&format!(r"\A{}{end}", translated.pattern));
            Ok((regex.map_err(|e| e.to_string())?, translated.names))
        });
        let (regex, names) = compiled.map_err(|error| {
            let reason = format!("`{text}` is no regular expression: {error}");
            Error::config("adapter configuration").key(key, reason)
        })?;
        Ok(Self {
            regex,
            names,
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

    /// What the group of a name matches; `None` if the expression does not match, `Some(None)` if it
    /// matches without the group.
    ///
    /// # Errors
    /// As [`Self::is_match`].
    pub fn group<'a>(&self, name: &str, path: &'a str) -> Result<Option<Option<&'a str>>> {
        let captures = self.regex.captures(path);
        let captures = captures.map_err(|e| self.gives_up(path, &e))?;
        Ok(captures.map(|captures| {
            let group = captures.get(*self.names.get(name)?)?;
            Some(group.as_str())
        }))
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
        assert!(full(r"(?P<n>a)(b)\2(?P=n)\1", "abbaa") && full(r"(?P<n>a)?(?(n)b|c)", "ab"));
        for wrong in [
            r"(?P<n>a)(?P<n>b)",
            r"(?P=n)(?P<n>a)",
            r"(a\1)",
            r"a\1",
            "(?P<1>a)",
            "(?i-i:a)",
            "a**",
            "*a",
            "(a",
            "a)",
            r"\p{L}",
            "(?<n>a)",
            "a(?i)b",
            "[a",
            "^*",
            r"a\",
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
