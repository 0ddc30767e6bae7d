//! `--adapter PATH[=STRENGTH]`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::located::{Wanted, place};

/// An adapter folder and how much of it to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterArg {
    /// The folder.
    pub folder: PathBuf,
    /// 1 unless given.
    pub strength: f64,
}

impl AdapterArg {
    /// What turns an argument into an adapter.
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::parse)
    }

    /// As [`Self::parser`] does it, for an option of a file.
    ///
    /// # Errors
    /// If there is no such folder and no strength.
    pub fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text.into())
    }

    /// Puts a folder here in place of a name on the Hub.
    pub fn locate(&mut self) -> anyhow::Result<()> {
        self.folder = place(&self.folder, Wanted::Model)?;
        Ok(())
    }

    /// What stands behind the last `=` is the strength, unless all of it names something that
    /// exists.
    pub(super) fn parse(argument: OsString) -> Result<Self, String> {
        let whole = |argument: OsString| Self {
            folder: argument.into(),
            strength: 1.0,
        };
        let split = argument.to_str().and_then(|text| text.rsplit_once('='));
        let Some((folder, strength)) = split else {
            return Ok(whole(argument));
        };
        if PathBuf::from(&argument).exists() {
            return Ok(whole(argument));
        }
        match strength.parse::<f64>() {
            Ok(strength) if strength.is_finite() => Ok(Self {
                folder: folder.into(),
                strength,
            }),
            _ => Err(format!(
                "there is no such folder, and the strength `{strength}` is not a finite number"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(argument: &str) -> Result<AdapterArg, String> {
        AdapterArg::parse(argument.into())
    }

    fn adapter(folder: &str, strength: f64) -> AdapterArg {
        let folder = folder.into();
        AdapterArg { folder, strength }
    }

    #[test]
    fn the_strength_stands_behind_the_last_sign() {
        assert_eq!(parse("runs/a"), Ok(adapter("runs/a", 1.0)));
        assert_eq!(parse("runs/a=0.5"), Ok(adapter("runs/a", 0.5)));
        assert_eq!(parse("runs/a=-1"), Ok(adapter("runs/a", -1.0)));
        assert_eq!(parse("lr=1e-3/a=2"), Ok(adapter("lr=1e-3/a", 2.0)));
        for bad in ["a=", "a=x", "a=nan", "a=inf", "lr=1e-3/a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_that_exists_is_a_path() {
        let work = tempfile::tempdir().unwrap();
        let folder = work.path().join("lr=0.5");
        std::fs::create_dir(&folder).unwrap();
        let text = folder.to_str().unwrap();
        assert_eq!(parse(text), Ok(adapter(text, 1.0)));
        assert_eq!(parse(&format!("{text}=0.25")), Ok(adapter(text, 0.25)));
    }
}
