//! Runs of PEFT, by the scripts of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::machine::Machine;
use super::model::Model;
use super::options::Options;
use super::process;
use super::table::NOTHING;
use super::training::{Run, Task};

/// Backends whose models PEFT trains on a CPU. The libraries of the others compute on GPUs only.
const ON_A_CPU: &[&str] = &["dense", "bnb-4bit", "bnb-8bit", "hqq"];

/// PEFT, in the interpreters that were given.
#[derive(Debug)]
pub struct Peft<'a> {
    options: &'a Options,
    threads: usize,
    scripts: PathBuf,
}

/// A merge.
#[derive(Debug, Deserialize)]
pub struct Merged {
    /// From the load of the model to the end of writing, without the load of the libraries.
    #[serde(rename = "merge_s")]
    pub seconds: f64,
}

impl<'a> Peft<'a> {
    /// With the scripts of the workspace `root`.
    pub fn new(options: &'a Options, root: &Path, threads: usize) -> Self {
        Self {
            options,
            threads,
            scripts: root.join("scripts"),
        }
    }

    /// Why PEFT is not run on a model, if it is not.
    pub fn refusal(&self, model: &Model) -> Option<&'static str> {
        match self.options.python(model.method.as_deref()) {
            None => Some(NOTHING),
            Some(_) if !ON_A_CPU.contains(&model.backend()) => Some("not on a CPU"),
            Some(_) => None,
        }
    }

    /// As [`Self::refusal`], for a run in bf16.
    pub fn bf16_refusal(&self, model: &Model, machine: &Machine) -> Option<&'static str> {
        let refusal = self.refusal(model);
        match model.backend() {
            _ if refusal.is_some() => refusal,
            _ if !machine.bf16 => Some(NOTHING),
            // Its statistics stay f32, and its products do not mix the two.
            "hqq" => Some("f32 only"),
            _ => None,
        }
    }

    /// As [`Self::refusal`], for a merge.
    pub fn merge_refusal(&self, model: &Model) -> Option<&'static str> {
        let refusal = self.refusal(model);
        // `merge_and_unload` fails on HQQ's layers.
        refusal.or((model.backend() == "hqq").then_some("fails"))
    }

    /// The versions of the libraries in the interpreters.
    pub fn versions(&self) -> Vec<String> {
        let methods = [None, Some("bitsandbytes"), Some("hqq")];
        let mut lines: Vec<String> = methods
            .into_iter()
            .filter_map(|method| versions(self.options.python(method)?))
            .collect();
        lines.dedup();
        lines
    }

    /// Trains a new adapter.
    ///
    /// # Errors
    ///
    /// If the script fails.
    pub fn train(&self, task: &Task, dtype: &str, work: &Path) -> Result<Run> {
        let mut command = self.script("peft_benchmark.py", task.model)?;
        command.arg("--data").arg(&task.data);
        command.args(["--dtype", dtype]);
        for (name, value) in [
            ("--steps", task.steps),
            ("--batch-size", task.shape[0]),
            ("--max-length", task.shape[1]),
        ] {
            command.arg(name).arg(value.to_string());
        }
        self.finish::<Run>(command, work)
            .map(|(run, peak_bytes)| Run { peak_bytes, ..run })
    }

    /// Merges an adapter into a model and writes it to `output`.
    ///
    /// # Errors
    ///
    /// If the script fails.
    pub fn merge(&self, model: &Model, adapter: &Path, output: &Path) -> Result<Merged> {
        let mut command = self.script("peft_merge.py", model)?;
        command.arg("--adapter").arg(adapter);
        command.arg("--save").arg(output);
        let work = output.parent().context("an output folder in a folder")?;
        Ok(self.finish(command, work)?.0)
    }

    fn script(&self, name: &str, model: &Model) -> Result<Command> {
        let python = self.options.python(model.method.as_deref());
        let mut command = Command::new(python.context("no interpreter")?);
        command.arg(self.scripts.join(name));
        command.arg("--model").arg(&model.folder);
        command.arg("--threads").arg(self.threads.to_string());
        command.env("OMP_NUM_THREADS", self.threads.to_string());
        command.env("HF_HUB_OFFLINE", "1");
        Ok(command)
    }

    /// Runs a script; it writes its figures into a file in `work`.
    fn finish<T: serde::de::DeserializeOwned>(
        &self,
        mut command: Command,
        work: &Path,
    ) -> Result<(T, Option<u64>)> {
        let json = work.join("peft.json");
        command.arg("--json").arg(&json);
        let finished = process::run(&mut command)?;
        let text = std::fs::read_to_string(&json).with_context(|| json.display().to_string())?;
        Ok((serde_json::from_str(&text)?, finished.peak_bytes))
    }
}

/// The versions of the libraries in an interpreter.
fn versions(python: &Path) -> Option<String> {
    const CODE: &str = "import importlib.metadata as m, json\n\
        names = ['peft', 'torch', 'transformers', 'bitsandbytes', 'hqq']\n\
        have = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n\
        print(json.dumps({n: have[n] for n in names if n in have}))";
    let finished = process::run(Command::new(python).args(["-c", CODE])).ok()?;
    let found: Value = serde_json::from_str(&finished.stdout).ok()?;
    let found = found.as_object()?.iter();
    let names = found.map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or("?")));
    Some(names.collect::<Vec<_>>().join(", "))
}
