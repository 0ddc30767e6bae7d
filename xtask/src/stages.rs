//! Checks that call cargo, one after the other.

mod gpu;
mod mpi;
mod test_all;
mod tools;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{cargo, root, say};

pub use gpu::TEST_GPU;
pub use mpi::{TEST_MPI, where_installed as mpi_where_installed};
pub use test_all::TEST_ALL;
pub use tools::{is_there, run as run_tools};

/// A call of cargo that has to succeed.
pub struct Stage {
    title: &'static str,
    /// Arguments of cargo.
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

impl Stage {
    /// The stage as one would type it.
    fn line(&self) -> String {
        let env = self
            .env
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\" "));
        format!("{}cargo {}", env.collect::<String>(), self.args.join(" "))
    }

    fn run(&self, cargo: &OsString, root: &Path) -> Result<()> {
        let status = Command::new(cargo)
            .args(self.args)
            .envs(self.env.iter().copied())
            .current_dir(root)
            .status()
            .with_context(|| format!("cannot run {}", cargo.display()))?;
        if !status.success() {
            bail!(
                "stage \"{}\" failed ({status}): {}",
                self.title,
                self.line()
            );
        }
        Ok(())
    }
}

/// Runs stages one after the other; `name` is the command that they make up.
pub fn run(name: &str, stages: &[&[Stage]]) -> Result<()> {
    let stages: Vec<&Stage> = stages.iter().copied().flatten().collect();
    let cargo = cargo();
    let root = root()?;
    let count = stages.len();
    let began = Instant::now();
    let mut times: Vec<(&str, Duration)> = Vec::with_capacity(count);
    for (index, stage) in stages.iter().enumerate() {
        say(&format!(
            "\n=== {}/{count} {}\n    {}\n",
            index + 1,
            stage.title,
            stage.line()
        ))?;
        let start = Instant::now();
        stage.run(&cargo, root)?;
        let time = start.elapsed();
        say(&format!(
            "--- {}/{count} {}: ok in {:.1} s",
            index + 1,
            stage.title,
            time.as_secs_f64()
        ))?;
        times.push((stage.title, time));
    }
    say("\n=== summary")?;
    for (title, time) in times {
        say(&format!("{:8.1} s  {title}", time.as_secs_f64()))?;
    }
    say(&format!(
        "{name}: {count} of {count} stages passed in {:.1} s",
        began.elapsed().as_secs_f64()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_typed() {
        let stage = Stage {
            title: "documentation",
            args: &["doc", "--no-deps"],
            env: &[("RUSTDOCFLAGS", "-D warnings")],
        };
        let (line, expected) = (
            stage.line(),
            "RUSTDOCFLAGS=\"-D warnings\" cargo doc --no-deps",
        );
        assert_eq!(line, expected);
    }

    #[test]
    #[cfg(unix)]
    fn a_failing_stage_is_named() {
        let stage = Stage {
            title: "nonsense",
            args: &["some", "arguments"],
            env: &[],
        };
        let error = stage
            .run(&"false".into(), Path::new("."))
            .expect_err("fails");
        assert!(error.to_string().contains("nonsense"), "{error}");
    }
}
