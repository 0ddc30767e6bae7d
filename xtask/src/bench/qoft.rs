//! Runs of the program `qoft`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::model::{Inspection, Model};
use super::process::{self, Finished};
use super::training::{Run, Task};

/// The program.
#[derive(Debug)]
pub struct Qoft {
    program: PathBuf,
    threads: usize,
}

/// What `qoft train --json` says that is not in the log.
#[derive(Debug, Deserialize)]
struct Summary {
    loading_seconds: f64,
}

/// A row of `log.jsonl`.
#[derive(Debug, Deserialize)]
struct LogRow {
    seconds: f64,
}

/// What `qoft generate --json` says.
#[derive(Debug, Deserialize)]
pub struct Generated {
    /// Tokens that were written.
    pub new_tokens: usize,
    /// Nothing if it was one token or none.
    pub tokens_per_second: Option<f64>,
}

impl Qoft {
    /// The program at `path`, or the one that cargo builds in the workspace `root`.
    ///
    /// # Errors
    ///
    /// If it cannot be built.
    pub fn new(path: Option<PathBuf>, root: &Path, threads: usize) -> Result<Self> {
        let program = match path {
            Some(path) => path,
            None => build(root)?,
        };
        Ok(Self { program, threads })
    }

    /// A model folder, as the program sees it.
    ///
    /// # Errors
    ///
    /// If the program cannot read it.
    pub fn model(&self, folder: &Path) -> Result<Model> {
        let finished = self.run(Command::new(&self.program).arg("inspect").arg(folder))?;
        let inspection: Inspection = parse(&finished.stdout)?;
        Model::new(folder, inspection)
    }

    /// Trains a new adapter at `output`.
    ///
    /// # Errors
    ///
    /// If the program fails.
    pub fn train(&self, task: &Task, output: &Path) -> Result<Run> {
        let mut command = Command::new(&self.program);
        command.arg("train").arg("--model").arg(&task.model.folder);
        command.arg("--data").arg(&task.data);
        command.arg("--output").arg(output);
        command.args(["--target-modules", "all-linear", "--oft-block-size", "32"]);
        command.args(["--learning-rate", "1e-3", "--lr-scheduler", "constant"]);
        command.args(["--max-grad-norm", "0", "--no-shuffle"]);
        for (name, value) in [
            ("--max-steps", task.steps),
            ("--batch-size", task.shape[0]),
            ("--max-length", task.shape[1]),
        ] {
            command.arg(name).arg(value.to_string());
        }
        if task.gradient_checkpointing {
            command.arg("--gradient-checkpointing");
        }
        command.args(["--compute-dtype", task.compute_dtype]);
        let finished = self.run(&mut command)?;
        let summary: Summary = parse(&finished.stdout)?;
        let log = output.join("log.jsonl");
        let log = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
        let rows = log.lines().map(|line| Ok(parse::<LogRow>(line)?.seconds));
        let seconds: Vec<f64> = rows.collect::<Result<_>>()?;
        Ok(Run {
            start_to_first_step: summary.loading_seconds + seconds.first().context("no steps")?,
            seconds,
            peak_bytes: finished.peak_bytes,
        })
    }

    /// Continues a text.
    ///
    /// # Errors
    ///
    /// If the program fails.
    pub fn generate(&self, model: &Model, new_tokens: usize) -> Result<Generated> {
        let mut command = Command::new(&self.program);
        command.arg("generate").arg("--model").arg(&model.folder);
        command.args(["--prompt", "Once upon a time"]);
        command.arg("--max-new-tokens").arg(new_tokens.to_string());
        parse(&self.run(&mut command)?.stdout)
    }

    /// Merges an adapter into a model.
    ///
    /// # Errors
    ///
    /// If the program fails.
    pub fn merge(
        &self,
        model: &Model,
        adapter: &Path,
        output: &Path,
        dense: bool,
    ) -> Result<Finished> {
        let mut command = Command::new(&self.program);
        command.arg("merge").arg("--model").arg(&model.folder);
        command.arg("--adapter").arg(adapter);
        command.arg("--output").arg(output);
        command.args(dense.then_some("--dequantize"));
        // The adapters of the benchmark are hardly trained: rounding may take what they changed.
        command.args(["--min-kept", "0"]);
        self.run(&mut command)
    }

    fn run(&self, command: &mut Command) -> Result<Finished> {
        command.arg("--json");
        command.arg("--threads").arg(self.threads.to_string());
        process::run(command)
    }
}

/// Builds the program with the features that all other commands of the workspace give it.
fn build(root: &Path) -> Result<PathBuf> {
    let status = Command::new(crate::cargo())
        .args(["build", "--release", "--workspace", "--bin", "qoft"])
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("qoft cannot be built ({status})");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root.join("target"), |target| root.join(target));
    Ok(target.join(format!("release/qoft{}", std::env::consts::EXE_SUFFIX)))
}

/// Parses what a program printed.
fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("unexpected output: {text}"))
}
