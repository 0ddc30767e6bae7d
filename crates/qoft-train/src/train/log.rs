//! `log.jsonl`: a row for each step and each evaluation.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use qoft_core::{Error, write_file};
use serde::{Deserialize, Serialize};

use super::observer::{Observer, StepReport};
use crate::error::TrainError;
use crate::eval::Evaluation;

pub(super) const NAME: &str = "log.jsonl";

/// A row of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum LogRow {
    Step {
        step: usize,
        loss: f64,
        learning_rate: f64,
        grad_norm: f64,
        #[serde(default)] // Logs from before it was written are read too.
        seconds: f64,
        tokens_per_second: f64,
        #[serde(flatten)]
        metrics: BTreeMap<String, f64>,
    },
    Eval {
        step: usize,
        eval_loss: f64,
        #[serde(flatten)]
        metrics: BTreeMap<String, f64>,
    },
}

/// What the names of measured numbers of evaluations begin with.
const EVAL: &str = "eval_";

impl LogRow {
    pub(super) fn new(report: &StepReport) -> Self {
        Self::Step {
            step: report.step,
            loss: report.loss,
            learning_rate: report.lr,
            grad_norm: report.grad_norm,
            seconds: report.seconds,
            tokens_per_second: report.tokens_per_second,
            metrics: report.metrics.clone(),
        }
    }

    pub(super) fn evaluation(step: usize, evaluation: &Evaluation) -> Self {
        let metrics = evaluation.metrics.iter();
        let metrics = metrics.map(|(name, value)| (format!("{EVAL}{name}"), *value));
        Self::Eval {
            step,
            eval_loss: evaluation.loss,
            metrics: metrics.collect(),
        }
    }

    fn step(&self) -> usize {
        match self {
            Self::Step { step, .. } | Self::Eval { step, .. } => *step,
        }
    }
}

/// The file, and its rows in memory. A row that cannot be written waits until it can.
#[derive(Debug)]
pub(super) struct Log {
    /// Nowhere if another process writes it.
    path: Option<PathBuf>,
    /// How much of the file is whole rows.
    written: u64,
    /// Rows that are not in the file.
    waiting: String,
    rows: Vec<LogRow>,
    warned: bool,
}

impl Log {
    /// Starts the file in `folder`. Of one that is there, the rows of the first `kept` steps stay,
    /// byte by byte.
    pub(super) fn open(folder: &Path, kept: usize) -> Result<Self, TrainError> {
        let path = folder.join(NAME);
        let (text, rows) = read(&path, kept)?;
        write_file(&path, text.as_bytes())?;
        Ok(Self {
            path: Some(path),
            written: text.len() as u64,
            waiting: String::new(),
            rows,
            warned: false,
        })
    }

    /// Rows in memory, of a run whose file another process writes.
    pub(super) fn unwritten() -> Self {
        Self {
            path: None,
            written: 0,
            waiting: String::new(),
            rows: Vec::new(),
            warned: false,
        }
    }

    /// Adds a row; it is in the file at once, if the file can be written.
    pub(super) fn add(&mut self, row: LogRow, events: &mut dyn Observer) {
        self.waiting.push_str(&line(&row));
        self.rows.push(row);
        match self.write() {
            Ok(()) => self.warned = false,
            Err((path, error)) if !self.warned => {
                let path = path.display();
                events.warning(&format!(
                    "{path}: {error}; its rows are kept and tried again"
                ));
                self.warned = true;
            }
            Err(_) => {}
        }
    }

    /// Tells how many rows could not be written in the end.
    pub(super) fn close(&mut self, events: &mut dyn Observer) {
        if let Err((path, error)) = self.write() {
            let (path, rows) = (path.display(), self.waiting.lines().count());
            events.warning(&format!(
                "{path}: the last {rows} rows are missing: {error}"
            ));
        }
    }

    fn write(&mut self) -> Result<(), (PathBuf, std::io::Error)> {
        if let Some(path) = self.path.clone() {
            return self.write_to(&path).map_err(|error| (path, error));
        }
        self.waiting.clear();
        Ok(())
    }

    fn write_to(&mut self, path: &Path) -> std::io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        // Opened anew each time: the file system may have been away in between.
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let written = file.write_all(self.waiting.as_bytes());
        if let Err(error) = written {
            cut(&file, self.written);
            return Err(error);
        }
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// (step, loss) of all steps.
    pub(super) fn losses(&self) -> Vec<(f64, f64)> {
        let point = |row: &LogRow| match row {
            LogRow::Step { step, loss, .. } => Some((*step as f64, *loss)),
            LogRow::Eval { .. } => None,
        };
        self.rows.iter().filter_map(point).collect()
    }

    /// (step, loss) of all evaluations.
    pub(super) fn eval_losses(&self) -> Vec<(f64, f64)> {
        let point = |row: &LogRow| match row {
            LogRow::Eval {
                step, eval_loss, ..
            } => Some((*step as f64, *eval_loss)),
            LogRow::Step { .. } => None,
        };
        self.rows.iter().filter_map(point).collect()
    }

    /// What was measured in the evaluation after `step` steps, without the beginning of the names.
    pub(super) fn eval_metrics(&self, step: usize) -> BTreeMap<String, f64> {
        let of_step = |row: &LogRow| match row {
            LogRow::Eval {
                step: at, metrics, ..
            } if *at == step => Some(plain(metrics)),
            _ => None,
        };
        self.rows.iter().rev().find_map(of_step).unwrap_or_default()
    }
}

/// Measured numbers of an evaluation under the names of those of a step.
pub(super) fn plain(metrics: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let name = |name: &String| name.strip_prefix(EVAL).unwrap_or(name).to_owned();
    let metrics = metrics.iter();
    metrics.map(|(key, value)| (name(key), *value)).collect()
}

/// Removes part of a row. If that fails too, readers leave the part out.
fn cut(file: &File, length: u64) {
    let _ = file.set_len(length);
}

fn line(row: &LogRow) -> String {
    let mut text = serde_json::to_string(row).expect("a plain enum");
    text.push('\n');
    text
}

/// All rows of the log in a folder.
pub(super) fn read_all(folder: &Path) -> Result<Vec<LogRow>, TrainError> {
    read(&folder.join(NAME), usize::MAX).map(|(_, rows)| rows)
}

/// The rows of the first `kept` steps, as they stand in the file and as they are read. A last line
/// that was not written to its end is left out.
fn read(path: &Path, kept: usize) -> Result<(String, Vec<LogRow>), TrainError> {
    let mut found = (String::new(), Vec::new());
    if kept == 0 {
        return Ok(found);
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(Error::io(path)(e).into()),
    };
    for line in text.lines() {
        match serde_json::from_str::<LogRow>(line) {
            Ok(row) if row.step() <= kept => {
                found.0.push_str(line);
                found.0.push('\n');
                found.1.push(row);
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: usize) -> LogRow {
        LogRow::Step {
            step,
            loss: 2.5,
            learning_rate: 1e-4,
            grad_norm: 0.5,
            seconds: 0.5,
            tokens_per_second: 100.0,
            metrics: BTreeMap::new(),
        }
    }

    #[derive(Default)]
    struct Warnings(Vec<String>);

    impl Observer for Warnings {
        fn warning(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn a_resumed_run_keeps_the_rows_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let mut log = Log::open(dir.path(), 0).unwrap();
        for step in 1..=3 {
            log.add(row(step), &mut ());
        }
        let eval = LogRow::Eval {
            step: 3,
            eval_loss: 2.0,
            metrics: BTreeMap::from([("eval_a".to_owned(), 0.5)]),
        };
        log.add(eval, &mut ());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(
            r#"{"step":1,"loss":2.5,"learning_rate":0.0001,"grad_norm":0.5,"seconds":0.5,"tokens_per_second":100.0}"#
        ));
        assert!(text.ends_with("{\"step\":3,\"eval_loss\":2.0,\"eval_a\":0.5}\n"));
        std::fs::write(&path, text + "{\"step\":4,\"lo").unwrap();

        let log = Log::open(dir.path(), 3).unwrap();
        assert_eq!(log.losses().len(), 3);
        assert_eq!(log.eval_losses(), [(3.0, 2.0)]);
        assert_eq!(log.eval_metrics(3), BTreeMap::from([("a".to_owned(), 0.5)]));
        let log = Log::open(dir.path(), 2).unwrap();
        assert_eq!((log.losses().len(), log.eval_losses().len()), (2, 0));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert!(Log::open(dir.path(), 0).unwrap().losses().is_empty());
    }

    #[test]
    fn rows_that_are_kept_do_not_change_in_a_digit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        // Numbers that a quick reading of decimals misses by one digit.
        let mut text = String::new();
        for step in 1..=200 {
            let loss = 1.0 / (step as f64 * 0.37);
            text += &format!("{{\"step\":{step},\"loss\":{loss},\"learning_rate\":1e-4,");
            text += &format!("\"grad_norm\":{},\"tokens_per_second\":3}}\n", loss * 7.3);
        }
        std::fs::write(&path, &text).unwrap();
        let log = Log::open(dir.path(), 200).unwrap();
        assert_eq!(log.losses().len(), 200);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn rows_wait_until_they_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let mut log = Log::open(dir.path(), 0).unwrap();
        let mut warnings = Warnings::default();
        log.add(row(1), &mut warnings);
        // A folder in the file's place: nothing can be written.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        log.add(row(2), &mut warnings);
        log.add(row(3), &mut warnings);
        assert_eq!(warnings.0.len(), 1, "{:?}", warnings.0);
        assert!(warnings.0[0].contains(NAME));
        log.close(&mut warnings);
        assert!(warnings.0[1].contains("the last 2 rows are missing"));
        std::fs::remove_dir(&path).unwrap();
        log.add(row(4), &mut warnings);
        log.close(&mut warnings);
        assert_eq!(warnings.0.len(), 2);
        let text = std::fs::read_to_string(&path).unwrap();
        let steps: Vec<usize> = text
            .lines()
            .map(|line| serde_json::from_str::<LogRow>(line).unwrap().step())
            .collect();
        assert_eq!(steps, [2, 3, 4]);
        assert_eq!(log.losses().len(), 4);
    }
}
