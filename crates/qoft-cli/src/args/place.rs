//! The model that a command is about.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::located::{Wanted, place};

/// Where a model is, which may be said with `--model` or without.
#[derive(Debug, Clone, Args)]
#[group(id = "place", required = true, multiple = false)]
pub struct ModelPlace {
    /// The checkpoint folder, or its name on the Hugging Face Hub: OWNER/NAME[@REVISION].
    #[arg(value_name = "MODEL")]
    given: Option<PathBuf>,
    /// The same, as an option.
    #[arg(long = "model", value_name = "MODEL")]
    option: Option<PathBuf>,
}

impl ModelPlace {
    /// Puts a folder here in place of a name on the Hub.
    pub fn locate(&mut self) -> Result<()> {
        let given = self.given.iter_mut().chain(&mut self.option);
        for path in given {
            *path = place(path, Wanted::Model)?;
        }
        Ok(())
    }
}

impl Deref for ModelPlace {
    type Target = Path;

    fn deref(&self) -> &Path {
        let given = self.given.as_deref().or(self.option.as_deref());
        given.expect("one of the two is required")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        model: ModelPlace,
    }

    fn parsed(arguments: &[&str]) -> Result<PathBuf, clap::Error> {
        let program = ["program"].iter().chain(arguments);
        Program::try_parse_from(program).map(|program| program.model.to_path_buf())
    }

    #[test]
    fn the_model_is_an_argument_or_an_option_but_not_both() {
        assert_eq!(parsed(&["m"]).unwrap(), Path::new("m"));
        assert_eq!(parsed(&["--model", "m"]).unwrap(), Path::new("m"));
        let both = parsed(&["m", "--model", "n"]).unwrap_err();
        assert_eq!(both.kind(), clap::error::ErrorKind::ArgumentConflict);
        let none = parsed(&[]).unwrap_err();
        assert_eq!(none.kind(), clap::error::ErrorKind::MissingRequiredArgument);
    }
}
