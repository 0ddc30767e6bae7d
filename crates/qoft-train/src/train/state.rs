//! What a checkpoint says about its run, and whether another run is the same.

use std::collections::BTreeMap;
use std::path::Path;

use qoft_core::{Error, read_bytes, read_text, write_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::below::Below;
use super::config::TrainConfig;
use super::digest::Digest;
use super::names::STATE;
use crate::error::TrainError;

/// Keys of an adapter's configuration that change nothing in a run.
const PROVENANCE: [&str; 4] = [
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
];

/// What a run is: with the same of all this, a step gives the same parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Of the model's checkpoint.
    pub(super) base: Option<Digest>,
    /// Of the training data.
    pub(super) data: Digest,
    /// Rows of the training data.
    pub(super) rows: usize,
    /// The configuration of the adapter.
    pub(super) adapter: Value,
    /// The adapters below the one that trains.
    pub(super) below: Vec<Below>,
    /// The settings of the run.
    pub(super) config: TrainConfig,
}

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TrainerState {
    /// Steps that are done.
    pub(super) step: usize,
    /// Steps of the whole run.
    pub(super) total: usize,
    /// Epochs that are done.
    pub(super) epoch: f64,
    /// What the run is.
    #[serde(flatten)]
    pub(super) run: Identity,
    /// After which step an evaluation was, and its loss: which one is the best decides what the run
    /// comes to.
    #[serde(default)]
    pub(super) evaluations: Vec<(usize, f64)>,
    /// The files beside this one.
    pub(super) files: BTreeMap<String, Digest>,
}

impl TrainerState {
    /// Writes `trainer_state.json`.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(STATE);
        let mut text = serde_json::to_string_pretty(self).map_err(|e| Error::file(&path, e))?;
        text.push('\n');
        write_file(&path, text.as_bytes())
    }

    /// Reads the state in a checkpoint and checks that the files beside it are those of the
    /// checkpoint.
    pub(super) fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(STATE);
        if !path.exists() {
            let reason = "it has no trainer_state.json, so it is no checkpoint-N folder of a run";
            return Err(resume(folder, reason));
        }
        let text = read_text(&path)?;
        let state: Self = serde_json::from_str(&text).map_err(|e| Error::file(&path, e))?;
        if let Some(steps) = super::folder::steps_in_name(folder)
            && steps != state.step
        {
            let found = state.step;
            return Err(resume(
                &path,
                format!("`step`: expected {steps}, as the folder's name says, found {found}"),
            ));
        }
        for (name, expected) in &state.files {
            let file = folder.join(name);
            let found = Digest::of_file(&file)?;
            if found != *expected {
                // It may only stand for the file.
                read_bytes(&file)?;
                let reason = format!(
                    "it is not the file that was saved with this checkpoint: its SHA-256 begins \
                     with {found} instead of {expected}"
                );
                return Err(resume(&file, reason));
            }
        }
        Ok(state)
    }

    /// Whether all steps of the run are done.
    pub(super) fn is_finished(&self) -> bool {
        self.step >= self.total
    }

    /// Fails unless `run` goes on as the run of this state would have.
    pub(super) fn check(&self, run: &Identity, folder: &Path) -> Result<(), TrainError> {
        let differences = self.run.differences(run);
        if differences.is_empty() {
            return Ok(());
        }
        let reason = format!(
            "the run that wrote it was another one: {}; give it the same, or start a new run from \
             the weights of this checkpoint",
            differences.join(", ")
        );
        Err(resume(folder, reason))
    }
}

impl Identity {
    /// As it is after it was written and read: numbers may change in their last digit.
    fn reread(&self) -> Self {
        let text = serde_json::to_string(self).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_else(|_| self.clone())
    }

    /// All of it by name, also what changes no number: processes that train together have the same.
    pub(super) fn parts(&self) -> Vec<(String, String)> {
        let base = self.base.as_ref().map(Digest::to_string);
        let mut parts = vec![
            ("the model".to_owned(), base.unwrap_or_default()),
            (
                "the training data".to_owned(),
                format!("{} ({} rows)", self.data, self.rows),
            ),
            ("the list of adapters below".to_owned(), list(&self.below)),
        ];
        let settings = all_settings(&self.config).into_iter();
        parts.extend(settings.map(|(key, value)| (format!("`{key}`"), value)));
        let keys = self.adapter.as_object().into_iter().flatten();
        let keys = keys.filter(|(key, _)| !PROVENANCE.contains(&key.as_str()));
        parts
            .extend(keys.map(|(key, value)| (format!("the adapter's `{key}`"), value.to_string())));
        parts
    }

    /// What of `now` is not as it was, with both values.
    pub(super) fn differences(&self, now: &Self) -> Vec<String> {
        let now = now.reread();
        let mut found = Vec::new();
        let mut compare = |name: &str, before: String, now: String| {
            if before != now {
                found.push(format!("{name} was {before} and is {now}"));
            }
        };
        let base = |run: &Self| match &run.base {
            Some(base) => base.to_string(),
            None => "unknown".into(),
        };
        compare("the model", base(self), base(&now));
        let data = |run: &Self| format!("{} ({} rows)", run.data, run.rows);
        compare("the training data", data(self), data(&now));
        let (old, new) = (settings(&self.config), settings(&now.config));
        for (key, before) in &old {
            compare(&format!("`{key}`"), before.clone(), new[key].clone());
        }
        let keys = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let (old, new) = (keys(&self.adapter), keys(&now.adapter));
        let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| !PROVENANCE.contains(&name.as_str()));
        let text = |value: Option<&Value>| value.unwrap_or(&Value::Null).to_string();
        for name in names {
            compare(
                &format!("the adapter's `{name}`"),
                text(old.get(name)),
                text(new.get(name)),
            );
        }
        if self.below != now.below {
            compare(
                "the list of adapters below",
                list(&self.below),
                list(&now.below),
            );
        }
        found
    }
}

/// Settings that change no number of a run. Its length may change: a run can be made longer.
const UNCOUNTED: [&str; 14] = [
    "early_stopping_patience",
    "early_stopping_threshold",
    "eval_batch_size",
    "eval_on_start",
    "eval_steps",
    "eval_strategy",
    "gradient_checkpointing",
    "load_best_model_at_end",
    "logging_steps",
    "max_steps",
    "num_epochs",
    "save_steps",
    "save_strategy",
    "save_total_limit",
];

/// The settings that change the numbers of a run.
fn settings(config: &TrainConfig) -> BTreeMap<String, String> {
    let mut settings = all_settings(config);
    settings.retain(|key, _| !UNCOUNTED.contains(&key.as_str()));
    settings
}

/// All settings as texts.
fn all_settings(config: &TrainConfig) -> BTreeMap<String, String> {
    let settings = serde_json::to_value(config).unwrap_or_default();
    let settings = settings.as_object().cloned().unwrap_or_default();
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let settings = settings.into_iter();
    settings.map(|(key, value)| (key, text(value))).collect()
}

/// Batches of a step of the run that wrote a checkpoint, those of all its processes together.
///
/// # Errors
/// If the folder is no whole checkpoint.
pub fn batches_of_step(checkpoint: &Path) -> Result<usize, TrainError> {
    let state = TrainerState::read(checkpoint)?;
    Ok(state.run.config.gradient_accumulation_steps)
}

fn list(below: &[Below]) -> String {
    let one = |below: &Below| format!("{below} ({})", below.weights);
    match below {
        [] => "empty".into(),
        below => below.iter().map(one).collect::<Vec<_>>().join(" "),
    }
}

/// Why a run cannot go on from a folder.
pub(super) fn resume(path: &Path, reason: impl Into<String>) -> TrainError {
    TrainError::Resume {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        serde_json::from_value(text.into()).unwrap()
    }

    fn identity() -> Identity {
        Identity {
            base: Some(digest("b1")),
            data: digest("d1"),
            rows: 16,
            adapter: serde_json::json!({"r": 0, "eps": 6e-5, "peft_version": "1"}),
            below: Vec::new(),
            config: TrainConfig {
                learning_rate: 0.1 + 0.2,
                ..TrainConfig::default()
            },
        }
    }

    fn state() -> TrainerState {
        TrainerState {
            step: 4,
            total: 8,
            epoch: 0.5,
            run: identity(),
            evaluations: vec![(2, 1.5)],
            files: BTreeMap::new(),
        }
    }

    #[test]
    fn a_state_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        state().write(dir.path()).unwrap();
        let read = TrainerState::read(dir.path()).unwrap();
        assert_eq!((read.step, read.total), (4, 8));
        assert_eq!(read.evaluations, [(2, 1.5)]);
        read.check(&identity(), dir.path()).unwrap();
        assert!(!read.is_finished());
    }

    #[test]
    fn another_run_is_refused_with_both_values() {
        let dir = tempfile::tempdir().unwrap();
        let check = |change: &dyn Fn(&mut Identity)| {
            let mut now = identity();
            change(&mut now);
            state().check(&now, dir.path()).map_err(|e| e.to_string())
        };
        let longer = |now: &mut Identity| {
            now.config.num_epochs = 9.0;
            now.config.save_steps = None;
            now.adapter["peft_version"] = "2".into();
        };
        check(&longer).unwrap();
        type Change = fn(&mut Identity);
        let changes: [(Change, &str); 8] = [
            (
                |now| now.base = Some(digest("b2")),
                "the model was b1 and is b2",
            ),
            (
                |now| now.data = digest("d2"),
                "the training data was d1 (16 rows) and is d2 (16 rows)",
            ),
            (|now| now.rows = 17, "is d1 (17 rows)"),
            (
                |now| now.config.batch_size = 3,
                "`batch_size` was 8 and is 3",
            ),
            (|now| now.config.seed = 7, "`seed` was 42 and is 7"),
            (
                |now| now.config.shuffle = false,
                "`shuffle` was true and is false",
            ),
            (
                |now| now.adapter["coft"] = true.into(),
                "the adapter's `coft` was null and is true",
            ),
            (
                |now| {
                    now.below.push(Below {
                        folder: "first".into(),
                        strength: 0.5,
                        weights: digest("w1"),
                    })
                },
                "the list of adapters below was empty and is first=0.5 (w1)",
            ),
        ];
        for (change, says) in changes {
            let error = check(&change).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn files_that_are_not_those_of_the_checkpoint_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("checkpoint-4");
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("optimizer.bin");
        std::fs::write(&file, "abc").unwrap();
        let mut state = state();
        let digest = Digest::of_file(&file).unwrap();
        state.files.insert("optimizer.bin".into(), digest);
        state.write(&folder).unwrap();
        TrainerState::read(&folder).unwrap();
        std::fs::write(&file, "abd").unwrap();
        let error = TrainerState::read(&folder).unwrap_err().to_string();
        assert!(
            error.contains("optimizer.bin") && error.contains("SHA-256"),
            "{error}"
        );

        let other = dir.path().join("checkpoint-5");
        std::fs::rename(&folder, &other).unwrap();
        let error = TrainerState::read(&other).unwrap_err().to_string();
        assert!(
            error.contains("expected 5") && error.contains("found 4"),
            "{error}"
        );
    }
}
