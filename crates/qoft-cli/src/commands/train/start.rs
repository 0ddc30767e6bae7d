//! Where a run begins, by its options and by what its output folder has.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use qoft::train::train::{
    RunFolder, Start, batches_of_step, earlier_checkpoints, is_emergency, last_checkpoint,
};
use serde::{Deserialize, Serialize};

use crate::args::{RunOptions, TrainArgs};
use crate::messages::with_causes;
use crate::print::errln;

/// The file that makes a folder a checkpoint.
const STATE: &str = "trainer_state.json";
/// The file that makes a folder an adapter.
const ADAPTER: &str = "adapter_config.json";
/// What the program writes at the end of a run beside what the run itself does.
const REPORTS: [&str; 2] = ["log.csv", "report.html"];

/// Where a run begins.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Origin {
    /// With a new adapter.
    New,
    /// With the weights of another adapter.
    Weights(PathBuf),
    /// After a checkpoint.
    Checkpoint(PathBuf),
}

impl Origin {
    /// What the options ask for, of which `named` is the [`named_checkpoint`]; fails if the run would
    /// mix its files with those of another one.
    pub fn find(
        args: &TrainArgs,
        named: Option<PathBuf>,
        options: &RunOptions,
        folder: &RunFolder,
    ) -> Result<Self> {
        let Some(from) = &args.resume_from else {
            return begin(args, options, folder);
        };
        if let Some(checkpoint) = named {
            return Ok(Self::Checkpoint(checkpoint));
        }
        match folder.last_checkpoint()? {
            Some(last) => Ok(Self::Checkpoint(last)),
            None if from == Path::new("auto") => begin(args, options, folder),
            None if folder.has_adapter() => bail!("{}: {}", folder.path().display(), done(folder)),
            None => bail!(
                "{}: there is no checkpoint-N to go on from",
                folder.path().display()
            ),
        }
    }

    /// Batches of a step of a run with these options, in so many processes: the given number for each. A run
    /// that goes on with the same options keeps what it has, and any number of processes share these. Fails
    /// if the checkpoint is not as it was written.
    pub fn batches(&self, options: &RunOptions, processes: usize) -> Result<usize> {
        let given = options.accumulation();
        let all = given.saturating_mul(processes);
        let Self::Checkpoint(checkpoint) = self else {
            return Ok(all);
        };
        let known = known_batches(checkpoint)?;
        let Some((_, before)) = RunOptions::of_run(checkpoint)? else {
            return Ok(all);
        };
        if before.accumulation() != given {
            return Ok(all);
        }
        if known == all || !known.is_multiple_of(given.max(1)) {
            return Ok(all);
        }
        errln!("a step of this run has {known} batches of --batch-size rows, and keeps them");
        Ok(known)
    }

    /// As the trainer takes it.
    pub fn start(&self) -> Start<'_> {
        match self {
            Self::New => Start::New,
            Self::Weights(folder) => Start::Weights(folder),
            Self::Checkpoint(folder) => Start::Checkpoint(folder),
        }
    }
}

/// The batches of a step of the run that left a checkpoint. The error of a damaged one names the last one
/// before it that is whole.
fn known_batches(checkpoint: &Path) -> Result<usize> {
    let error = match batches_of_step(checkpoint) {
        Ok(known) => return Ok(known),
        Err(error) => error,
    };
    let mut damaged = vec![checkpoint.display().to_string()];
    for earlier in earlier_checkpoints(checkpoint)? {
        if batches_of_step(&earlier).is_ok() {
            bail!(
                "{}; an earlier checkpoint is whole: remove {}, and --resume-from {} goes on",
                with_causes(&error.into()),
                damaged.join(" and "),
                earlier.display()
            );
        }
        damaged.push(earlier.display().to_string());
    }
    Err(error.into())
}

/// A run without `--resume-from`: a new one, unless the folder has the same one, which did not come
/// to its end.
fn begin(args: &TrainArgs, options: &RunOptions, folder: &RunFolder) -> Result<Origin> {
    let path = folder.path().display();
    let new = match &args.start_from {
        None => Origin::New,
        Some(weights) => Origin::Weights(weights.clone()),
    };
    if !folder.is_occupied()? {
        return Ok(new);
    }
    if overwrites(args) {
        ensure!(
            is_of_run(folder)?,
            "{path}: the output folder is not empty, and has nothing of a run that --overwrite-output-dir could \
             replace; choose another --output, or empty it yourself"
        );
        needs_nothing_of(args, folder.path())?;
        errln!("{path}: the run that is here is removed when this one begins");
        return Ok(new);
    }
    let Some(before) = RunOptions::read(folder.path())? else {
        ensure!(
            !folder.has_adapter() || folder.was_killed(),
            "{path}: {}",
            done(folder)
        );
        bail!(
            "{path}: the output folder exists and is not empty; --resume-from continues a run, \
             --start-from begins one with the weights of another"
        );
    };
    let differences = before.differences(options);
    // A run saves its adapter before the last evaluation, and may be killed in that.
    if folder.has_adapter() && !folder.was_killed() {
        let which = match differences.is_empty() {
            true => "this run is done, and its adapter is here".to_owned(),
            false => format!(
                "the output folder has the adapter of another run: {}",
                differences.join(", ")
            ),
        };
        // Shorter runs than --save-steps have no checkpoint.
        let longer = match folder.last_checkpoint()? {
            Some(_) => {
                ", or --resume-from last with more steps (--max-steps, --num-epochs; more \
                 --early-stopping-patience after an early stop)"
            }
            None => "",
        };
        bail!(
            "{path}: {which}; choose another --output to train once more, from its weights with \
             --start-from {path}{longer}, or remove it by --overwrite-output-dir"
        );
    }
    ensure!(
        differences.is_empty(),
        "{path}: the output folder has a run that did not come to its end, and that was another \
         one: {}; --resume-from last goes on with it, and --overwrite-output-dir removes it",
        differences.join(", ")
    );
    match folder.last_checkpoint()? {
        Some(last) => {
            errln!(
                "going on from {}, of a run with the same options",
                last.display()
            );
            Ok(Origin::Checkpoint(last))
        }
        None => {
            errln!("{path}: beginning anew: a run with the same options left no checkpoint");
            Ok(new)
        }
    }
}

/// Whether a run is to begin anew where there is another one. What is to be resumed is not removed.
fn overwrites(args: &TrainArgs) -> bool {
    args.overwrite_output_dir == Some(true) && args.resume_from.is_none()
}

/// Whether something in the folder says that a run wrote there.
fn is_of_run(folder: &RunFolder) -> Result<bool> {
    Ok(folder.has_run()? || RunOptions::read(folder.path())?.is_some())
}

/// Fails if adapters that the run begins with lie where files are removed.
fn needs_nothing_of(args: &TrainArgs, output: &Path) -> Result<()> {
    let inside = |path: &Path| match (path.canonicalize(), output.canonicalize()) {
        (Ok(path), Ok(output)) => path.starts_with(output),
        _ => false,
    };
    let below = args.frozen()?.into_iter().map(|adapter| adapter.folder);
    let mut needed = below.chain(args.start_from.clone());
    match needed.find(|path| inside(path)) {
        None => Ok(()),
        Some(path) => bail!(
            "--overwrite-output-dir would remove {}, which this run begins with; choose another --output",
            path.display()
        ),
    }
}

/// Removes the run in the folder, if this one takes its place.
pub fn remove_earlier(args: &TrainArgs, folder: &RunFolder) -> Result<()> {
    if overwrites(args) && is_of_run(folder)? {
        folder.remove_run(&REPORTS)?;
    }
    Ok(())
}

/// What there is to say of a folder with an adapter and no state of its run.
fn done(folder: &RunFolder) -> String {
    let path = folder.path().display();
    format!(
        "the run whose adapter is here is finished, and left no checkpoint-N to go on from; --start-from {path} \
         trains its weights further, with another --output"
    )
}

/// The checkpoint that is meant by the folder after `--resume-from`; none for a word in its place.
pub fn named_checkpoint(args: &TrainArgs) -> Result<Option<PathBuf>> {
    match &args.resume_from {
        Some(from) if from.exists() => checkpoint_of(from).map(Some),
        Some(from) if !matches!(from.to_str(), Some("last" | "auto")) => {
            bail!("--resume-from {}: there is no such folder", from.display())
        }
        _ => Ok(None),
    }
}

/// A checkpoint, or the last one of a run.
fn checkpoint_of(folder: &Path) -> Result<PathBuf> {
    let path = folder.display();
    ensure!(folder.is_dir(), "--resume-from {path}: this is no folder");
    if folder.join(STATE).exists() {
        return Ok(folder.to_owned());
    }
    if let Some(last) = last_checkpoint(folder)? {
        return Ok(last);
    }
    if is_emergency(folder) {
        bail!(
            "--resume-from {path}: this is the adapter that a run saved when it failed, as it was before \
             that, without the state of a training as a checkpoint-N folder has it; \
             --start-from {path} begins a new run with its weights, for which other options may be \
             better, such as a lower --learning-rate"
        );
    }
    if folder.join(ADAPTER).exists() {
        bail!(
            "--resume-from {path}: this is an adapter, without the state of a training as a \
             checkpoint-N folder has it; --start-from {path} begins a new run with its weights"
        );
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut left = entries.map(|entry| entry.path());
    if let Some(left) = left.find(|path| is_emergency(path)) {
        let left = left.display();
        bail!(
            "--resume-from {path}: the run here failed, and has no checkpoint-N; {left} has the adapter \
             as it was before: --start-from {left} begins a new run with its weights"
        );
    }
    bail!("--resume-from {path}: this is neither a checkpoint-N folder nor one that has some");
}
