//! A figure, or why there is none.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::table::NOTHING;

/// A figure, or why there is none.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// The figure.
    Measured(T),
    /// The reason, as it stands in a table.
    Not(String),
}

impl<T> Outcome<T> {
    /// Was not tried.
    pub fn nothing() -> Self {
        Self::Not(NOTHING.into())
    }

    /// The figure, if there is one.
    pub fn measured(&self) -> Option<&T> {
        match self {
            Self::Measured(value) => Some(value),
            Self::Not(_) => None,
        }
    }

    /// A part of the figure as it stands in a table.
    pub fn cell(&self, part: impl Fn(&T) -> String) -> String {
        match self {
            Self::Measured(value) => part(value),
            Self::Not(reason) => reason.clone(),
        }
    }
}

/// What failed, for the end of the report.
#[derive(Debug, Default)]
pub struct Failures(Vec<String>);

impl Failures {
    /// The value; an error is noted, and shown at once.
    pub fn check<T>(&mut self, what: &str, result: Result<T>) -> Outcome<T> {
        match result {
            Ok(value) => Outcome::Measured(value),
            Err(error) => {
                let line = format!("{what}: {error:#}");
                eprintln!("failed: {line}");
                self.0.push(line);
                Outcome::Not("failed".into())
            }
        }
    }

    /// One line for each.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_kept() {
        let mut failures = Failures::default();
        let good = failures.check("one", Ok(2.0));
        let bad = failures.check::<f64>("two", Err(anyhow::anyhow!("no room")));
        assert_eq!(good.cell(|value| format!("{value:.1}")), "2.0");
        assert_eq!(bad.cell(|value| format!("{value:.1}")), "failed");
        assert_eq!((good.measured(), bad.measured()), (Some(&2.0), None));
        assert_eq!(failures.lines(), ["two: no room"]);
    }
}
