//! `log.jsonl`: a row for each step and each evaluation.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use qoft_core::{Error, write_file};
use serde::{Deserialize, Serialize};

use super::observer::StepReport;
use crate::error::TrainError;

const NAME: &str = "log.jsonl";

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
    },
    Eval {
        step: usize,
        eval_loss: f64,
    },
}

impl LogRow {
    pub(super) fn new(report: &StepReport) -> Self {
        Self::Step {
            step: report.step,
            loss: report.loss,
            learning_rate: report.lr,
            grad_norm: report.grad_norm,
            seconds: report.seconds,
            tokens_per_second: report.tokens_per_second,
        }
    }

    fn step(&self) -> usize {
        match self {
            Self::Step { step, .. } | Self::Eval { step, .. } => *step,
        }
    }
}

/// The file, and its rows in memory.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    rows: Vec<LogRow>,
}

impl Log {
    /// Starts the file in `folder`. Of one that is there, the rows of the first `kept` steps stay.
    pub(super) fn open(folder: &Path, kept: usize) -> Result<Self, TrainError> {
        let path = folder.join(NAME);
        let rows = read(&path, kept)?;
        let text: String = rows.iter().map(line).collect();
        write_file(&path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path);
        Ok(Self {
            file: file.map_err(Error::io(&path))?,
            path,
            rows,
        })
    }

    /// Adds a row; it is in the file at once.
    pub(super) fn add(&mut self, row: LogRow) -> Result<(), TrainError> {
        let written = self.file.write_all(line(&row).as_bytes());
        written.map_err(Error::io(&self.path))?;
        self.rows.push(row);
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
            LogRow::Eval { step, eval_loss } => Some((*step as f64, *eval_loss)),
            LogRow::Step { .. } => None,
        };
        self.rows.iter().filter_map(point).collect()
    }
}

fn line(row: &LogRow) -> String {
    let mut text = serde_json::to_string(row).expect("a plain enum");
    text.push('\n');
    text
}

/// The rows of the first `kept` steps. A last line that was not written to its end is left out.
fn read(path: &Path, kept: usize) -> Result<Vec<LogRow>, TrainError> {
    if kept == 0 {
        return Ok(Vec::new());
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(path)(e).into()),
    };
    let rows = text
        .lines()
        .filter_map(|line| serde_json::from_str::<LogRow>(line).ok());
    Ok(rows.filter(|row| row.step() <= kept).collect())
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
        }
    }

    #[test]
    fn a_resumed_run_keeps_the_rows_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let mut log = Log::open(dir.path(), 0).unwrap();
        for step in 1..=3 {
            log.add(row(step)).unwrap();
        }
        let eval = LogRow::Eval {
            step: 3,
            eval_loss: 2.0,
        };
        log.add(eval).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(
            r#"{"step":1,"loss":2.5,"learning_rate":0.0001,"grad_norm":0.5,"seconds":0.5,"tokens_per_second":100.0}"#
        ));
        assert!(text.ends_with("{\"step\":3,\"eval_loss\":2.0}\n"));
        std::fs::write(&path, text + "{\"step\":4,\"lo").unwrap();

        let log = Log::open(dir.path(), 3).unwrap();
        assert_eq!(log.losses().len(), 3);
        assert_eq!(log.eval_losses(), [(3.0, 2.0)]);
        let log = Log::open(dir.path(), 2).unwrap();
        assert_eq!((log.losses().len(), log.eval_losses().len()), (2, 0));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert!(Log::open(dir.path(), 0).unwrap().losses().is_empty());
    }
}
