//! Checks by programs that not every machine has: where one is missing, it is said what is not checked.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::say;

/// A check by a program.
struct Tool {
    title: &'static str,
    program: &'static str,
    args: &'static [&'static str],
    /// What was checked all the same where there is no such program, and how to get it.
    otherwise: &'static str,
}

const TOOLS: &[Tool] = &[
    // Advisories need a network: the workflow of GitHub looks for them.
    Tool {
        title: "dependencies",
        program: "cargo-deny",
        args: &[
            "deny",
            "--all-features",
            "check",
            "bans",
            "licenses",
            "sources",
        ],
        otherwise: "licences, sources and bans were checked by xtask's own test; \
                    `cargo install --locked cargo-deny`",
    },
    Tool {
        title: "book",
        program: "mdbook",
        args: &["build", "docs"],
        otherwise: "links and the table of contents were checked by xtask's own test; \
                    `cargo install --locked mdbook`",
    },
];

/// Runs those that are there.
pub fn run(root: &Path) -> Result<()> {
    TOOLS.iter().try_for_each(|tool| tool.run(root))
}

impl Tool {
    fn run(&self, root: &Path) -> Result<()> {
        let line = format!("{} {}", self.program, self.args.join(" "));
        if !is_there(self.program) {
            let (title, program) = (self.title, self.program);
            return say(&format!(
                "--- {title}: there is no {program}; {}",
                self.otherwise
            ));
        }
        say(&format!("\n=== {}\n    {line}\n", self.title))?;
        let mut command = Command::new(self.program);
        let status = command.args(self.args).current_dir(root).status();
        let status = status.with_context(|| format!("cannot run {}", self.program))?;
        if !status.success() {
            bail!("\"{}\" failed ({status}): {line}", self.title);
        }
        say(&format!("--- {}: ok", self.title))
    }
}

/// Whether the machine has a program, which tells its version.
pub fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(program: &'static str, args: &'static [&'static str]) -> Tool {
        let (title, otherwise) = ("nonsense", "nothing");
        Tool {
            title,
            program,
            args,
            otherwise,
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_tool_that_is_missing_is_no_failure_and_one_that_fails_is() {
        let here = Path::new(".");
        tool("no-such-program-anywhere", &[])
            .run(here)
            .expect("is passed over");
        let error = tool("ls", &["no such file anywhere"]).run(here);
        let error = error.expect_err("fails").to_string();
        assert!(error.contains("nonsense"), "{error}");
    }
}
