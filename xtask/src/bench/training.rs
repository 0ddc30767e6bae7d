//! A training run of any program, and what several of them say together.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::model::Model;
use super::table::median;

/// Steps at the start of a run that are not counted.
const WARM_UP: usize = 2;

/// What to train.
#[derive(Debug)]
pub struct Task<'a> {
    /// The model.
    pub model: &'a Model,
    /// A file with enough rows for all steps.
    pub data: PathBuf,
    /// Rows and tokens of a step.
    pub shape: [usize; 2],
    /// Steps of the run.
    pub steps: usize,
    /// Compute blocks again in the backward.
    pub gradient_checkpointing: bool,
    /// In which qoft multiplies.
    pub compute_dtype: &'a str,
}

/// One run.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    /// Of each step.
    pub seconds: Vec<f64>,
    /// From the start of the program to the end of its first step.
    #[serde(rename = "start_to_first_step_s")]
    pub start_to_first_step: f64,
    /// The program's largest resident set.
    #[serde(skip)]
    pub peak_bytes: Option<u64>,
}

/// What runs of the same kind say together: medians.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Training {
    /// Of all steps after the first two of each run.
    pub seconds_per_step: f64,
    /// Tokens of a step over its time.
    pub tokens_per_second: f64,
    /// From the start of the program to the end of its first step.
    pub start_to_first_step: f64,
    /// The largest resident set.
    pub peak_bytes: Option<f64>,
    /// The steps that were counted.
    pub samples: Vec<f64>,
}

impl Training {
    /// Sums runs up; nothing if no step of them counts.
    pub fn of(runs: &[Run], tokens: usize) -> Option<Self> {
        let counted = |run: &Run| {
            run.seconds
                .iter()
                .skip(WARM_UP)
                .copied()
                .collect::<Vec<_>>()
        };
        let samples: Vec<f64> = runs.iter().flat_map(counted).collect();
        let seconds_per_step = median(samples.iter().copied())?;
        Some(Self {
            seconds_per_step,
            tokens_per_second: tokens as f64 / seconds_per_step,
            start_to_first_step: median(runs.iter().map(|run| run.start_to_first_step))?,
            peak_bytes: median(runs.iter().filter_map(|run| Some(run.peak_bytes? as f64))),
            samples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_steps_do_not_count() {
        let run = |seconds: &[f64], start, peak| Run {
            seconds: seconds.into(),
            start_to_first_step: start,
            peak_bytes: Some(peak),
        };
        let runs = [
            run(&[9.0, 8.0, 1.0, 3.0], 10.0, 100),
            run(&[9.0, 8.0, 2.0], 12.0, 300),
        ];
        let training = Training::of(&runs, 512).unwrap();
        assert_eq!(training.samples, [1.0, 3.0, 2.0]);
        assert_eq!(training.seconds_per_step, 2.0);
        assert_eq!(training.tokens_per_second, 256.0);
        assert_eq!(training.start_to_first_step, 11.0);
        assert_eq!(training.peak_bytes, Some(200.0));
        assert!(Training::of(&[run(&[1.0, 1.0], 1.0, 1)], 1).is_none());
    }
}
