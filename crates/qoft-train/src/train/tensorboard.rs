//! Event files of TensorBoard, with the tags of transformers' callback.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use qoft_core::Error;

use super::observer::{Observer, StepReport};
use crate::error::TrainError;
use crate::eval::Evaluation;

/// Where in the output folder the files are, as transformers has it.
const FOLDER: &str = "runs";
const VERSION: &str = "brain.Event:2";
/// What TensorFlow adds to a checksum (`tensorflow/core/lib/hash/crc32c.h`).
const MASK_DELTA: u32 = 0xa282_ead8;

/// A record of an event file (`tensorflow/core/util/event.proto`).
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Values>,
}

/// Numbers of a step (`tensorflow/core/framework/summary.proto`).
#[derive(Clone, PartialEq, Message)]
struct Values {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

/// Writes what a run tells into an event file.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
    failed: Option<String>,
}

impl TensorBoard {
    /// Starts a file in the folder `runs` of a run's output folder; those of earlier parts of the run
    /// stay, and TensorBoard puts them together.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn create(output: &Path) -> Result<Self, TrainError> {
        let folder = output.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let name = format!(
            "events.out.tfevents.{}.{}.qoft",
            now() as u64,
            std::process::id()
        );
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(&path);
        let mut board = Self {
            file: file.map_err(Error::io(&path))?,
            path,
            failed: None,
        };
        board.write(&Event {
            wall_time: now(),
            file_version: Some(VERSION.into()),
            ..Event::default()
        });
        Ok(board)
    }

    /// What could not be written.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let failed = self.failed.as_ref();
        failed.map(|error| format!("{}: {error}", self.path.display()))
    }

    fn add(&mut self, step: usize, values: &[(&str, f64)]) {
        let value = values.iter().map(|(tag, value)| Named {
            tag: (*tag).to_owned(),
            simple_value: *value as f32,
        });
        self.write(&Event {
            wall_time: now(),
            step: step as i64,
            file_version: None,
            summary: Some(Values {
                value: value.collect(),
            }),
        });
    }

    fn write(&mut self, event: &Event) {
        if let Err(error) = self.file.write_all(&record(&event.encode_to_vec())) {
            self.failed = Some(error.to_string());
        }
    }
}

impl Observer for TensorBoard {
    fn step(&mut self, report: &StepReport) {
        let mut values = vec![
            ("train/loss", report.loss),
            ("train/learning_rate", report.lr),
            ("train/grad_norm", report.grad_norm),
            ("train/tokens_per_second", report.tokens_per_second),
        ];
        let names = report.metrics.iter();
        let names: Vec<_> = names
            .map(|(name, v)| (format!("train/{name}"), *v))
            .collect();
        values.extend(names.iter().map(|(name, value)| (name.as_str(), *value)));
        self.add(report.step, &values);
    }

    fn eval(&mut self, step: usize, evaluation: &Evaluation) {
        let names = evaluation.metrics.iter();
        let names: Vec<_> = names
            .map(|(name, v)| (format!("eval/{name}"), *v))
            .collect();
        let mut values = vec![("eval/loss", evaluation.loss)];
        values.extend(names.iter().map(|(name, value)| (name.as_str(), *value)));
        self.add(step, &values);
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// A record as TensorFlow frames it: length, its checksum, content, its checksum.
fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let parts = [&length[..], &checksum(&length), content, &checksum(content)];
    parts.concat()
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let sum = crc32c::crc32c(bytes);
    sum.rotate_right(15).wrapping_add(MASK_DELTA).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_tensorboard() {
        // By tensorboard 2.20: EventFileWriter with one scalar.
        let event = Event {
            wall_time: 1.5,
            step: 3,
            file_version: None,
            summary: Some(Values {
                value: vec![Named {
                    tag: "train/loss".into(),
                    simple_value: 2.5,
                }],
            }),
        };
        let hex: String = record(&event.encode_to_vec())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, EXPECTED);
    }

    const EXPECTED: &str = "200000000000000029eda95009000000000000f83f10032a130a110a0a747261696e2f6c6f7373150000204012e1bdac";

    #[test]
    fn a_run_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let board = TensorBoard::create(folder.path()).unwrap();
        assert_eq!(board.failure(), None);
        let file = std::fs::read(&board.path).unwrap();
        assert!(file.windows(VERSION.len()).any(|w| w == VERSION.as_bytes()));
    }
}
