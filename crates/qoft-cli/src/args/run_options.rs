//! The options of a run, saved beside its adapter: a file for `--config`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use qoft::core::{read_text_if_there, write_file};
use qoft::train::train::{is_checkpoint, is_emergency};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{AdapterArg, DataArg, values};
use crate::located::absolute;

/// The file in the output folder.
const FILE: &str = "training_args.json";
/// Options that say where a run is, and not what it is.
const PLACES: [&str; 3] = ["output", "overwrite_output_dir", "resume_from"];
/// Options that change nothing in what is trained.
const REPORTS: [&str; 11] = [
    "ddp_timeout",
    "report_to",
    "json",
    "logging_steps",
    "save_steps",
    "save_strategy",
    "save_total_limit",
    "threads",
    "device",
    "quantize_cache",
    "data_cache",
];
/// Options that are paths.
const PATHS: [&str; 6] = [
    "model",
    "eval_data",
    "adapter_config",
    "start_from",
    "quantization_config",
    "quantize_cache",
];

/// The options of a run, by their names in a file of `--config`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions(Map<String, Value>);

impl RunOptions {
    /// The options that are given.
    pub fn new(args: &impl Serialize) -> Result<Self> {
        let Value::Object(mut options) = serde_json::to_value(args)? else {
            return Ok(Self(Map::new()));
        };
        options.retain(|key, value| !value.is_null() && !PLACES.contains(&key.as_str()));
        let absolute = |path: &Path| absolute(path).map(|path| path.display().to_string());
        for key in PATHS {
            if let Some(Value::String(path)) = options.get_mut(key) {
                *path = absolute(Path::new(path))?;
            }
        }
        if let Some(Value::Array(adapters)) = options.get_mut("adapter") {
            for value in adapters {
                let given = value.as_str().unwrap_or_default();
                let adapter = AdapterArg::from_text(given).map_err(|e| anyhow!("{given}: {e}"))?;
                let folder = absolute(&adapter.folder)?;
                *value = format!("{folder}={}", adapter.strength).into();
            }
        }
        if let Some(data) = options.get_mut("data") {
            let given = data.as_array().into_iter().flatten();
            let mut paths = Vec::new();
            for text in given.filter_map(Value::as_str) {
                let mut arg = DataArg::from_text(text)?;
                arg.path = absolute(&arg.path)?.into();
                paths.push(arg.to_string());
            }
            *data = match paths.len() {
                1 => paths.remove(0).into(),
                _ => paths.into(),
            };
        }
        Ok(Self(options))
    }

    /// Those of the run whose output folder this is; none if there are none.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        let Some(text) = read_text_if_there(&path)? else {
            return Ok(None);
        };
        let options = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        Ok(Some(Self(options)))
    }

    /// The output folder of the run to which a folder belongs, which is that or a checkpoint in it, and
    /// the options of the run; none if there are none.
    pub fn of_run(folder: &Path) -> Result<Option<(PathBuf, Self)>> {
        // `checkpoint-8` lies in the working directory.
        let above = folder
            .parent()
            .map(|above| match above.as_os_str().is_empty() {
                true => Path::new("."),
                false => above,
            });
        let above = above.filter(|_| is_checkpoint(folder) || is_emergency(folder));
        for run in [Some(folder), above].into_iter().flatten() {
            if let Some(options) = Self::read(run)? {
                return Ok(Some((run.to_owned(), options)));
            }
        }
        Ok(None)
    }

    /// Writes the file into the output folder of the run.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(&self.0)?;
        text.push('\n');
        Ok(write_file(&folder.join(FILE), text.as_bytes())?)
    }

    /// Batches of a step for each process.
    pub fn accumulation(&self) -> usize {
        let given = self.0.get("gradient_accumulation_steps");
        let given = given.and_then(Value::as_u64);
        given.map_or(1, |steps| usize::try_from(steps).unwrap_or(usize::MAX))
    }

    /// Options as a file of `--config` has them.
    pub fn into_options(self) -> Map<String, Value> {
        self.0
    }

    /// The options of which a run with `now` is another one, with both values.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut keys: Vec<&String> = self.0.keys().chain(now.0.keys()).collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| !REPORTS.contains(&key.as_str()));
        let text = |options: &Self, key: &str| match options.0.get(key) {
            None => "not given".to_owned(),
            Some(value) => values::text(value),
        };
        let pairs = keys
            .into_iter()
            .map(|key| (key, text(self, key), text(now, key)));
        pairs
            .filter(|(_, before, now)| before != now)
            .map(|(key, before, now)| format!("`{key}` was {before} and is {now}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{TrainArgs, TrainingArgs};

    #[test]
    fn options_survive_their_file_and_tell_what_is_another_run() {
        let folder = tempfile::tempdir().unwrap();
        assert!(RunOptions::read(folder.path()).unwrap().is_none());
        let args = TrainArgs {
            model: Some(folder.path().join("model")),
            data: Some(vec!["rows.jsonl".into()]),
            output: Some(folder.path().to_owned()),
            training: TrainingArgs {
                learning_rate: Some(0.1 + 0.2),
                logging_steps: Some(3.into()),
                ..TrainingArgs::default()
            },
            adapter: Some(vec!["a".into(), "b=0.5".into()]),
            ..TrainArgs::default()
        };
        let options = RunOptions::new(&args).unwrap();
        options.write(folder.path()).unwrap();
        let read = RunOptions::read(folder.path()).unwrap().unwrap();
        assert_eq!(read.differences(&options), [""; 0]);
        let data = Path::new(read.0["data"].as_str().unwrap());
        assert!(data.is_absolute());
        assert!(!read.0.contains_key("output"));
        let adapters = read.0["adapter"].as_array().unwrap();
        assert!(adapters[1].as_str().unwrap().ends_with("/b=0.5"));

        let other = TrainArgs {
            training: TrainingArgs {
                learning_rate: Some(0.5),
                max_steps: Some(7),
                ..TrainingArgs::default()
            },
            adapter: args.adapter.clone(),
            model: args.model.clone(),
            data: args.data.clone(),
            ..TrainArgs::default()
        };
        let differences = read.differences(&RunOptions::new(&other).unwrap());
        assert_eq!(differences.len(), 2, "{differences:?}");
        assert!(differences[0].starts_with("`learning_rate` was 0.3"));
        assert_eq!(differences[1], "`max_steps` was not given and is 7");
    }
}
