//! The rows of a training and of its evaluations.

use anyhow::{Context, Result};
use qoft::train::data::{Dataset, ValSize};

use crate::args::{DataArg, TrainArgs};
use crate::data::{self, For, Read};
use crate::print::errln;
use crate::progress;

/// The rows to train on, and those to evaluate on.
pub struct TrainingData {
    /// What is learned.
    pub dataset: Dataset,
    /// What is evaluated.
    pub eval_dataset: Option<Dataset>,
    read: Vec<Read>,
}

impl TrainingData {
    /// Reads what the options name; `seed` chooses rows where some are to be chosen.
    pub fn read(args: &TrainArgs, sources: &[DataArg], reading: For, seed: u64) -> Result<Self> {
        let mut read = data::read(sources, &args.reading, reading, seed)?;
        read.tell();
        let mut dataset = read.take();
        let mut all = vec![read];
        let mut eval_dataset = None;
        if let Some(path) = &args.eval_data {
            let source = DataArg {
                path: path.clone(),
                weight: None,
            };
            let mut read = data::read(&[source], &args.reading, reading, seed)?;
            read.tell();
            eval_dataset = Some(read.take());
            all.push(read);
        } else if let Some(size) = args.val_size {
            let split = ValSize::new(size).and_then(|size| dataset.split(size, seed));
            let (kept, aside) = split.context("--val-size")?;
            errln!(
                "{} rows are set aside to evaluate on, {} are left to train on",
                progress::grouped(aside.report.rows),
                progress::grouped(kept.report.rows)
            );
            (dataset, eval_dataset) = (kept, Some(aside));
        }
        let capacity = reading.longest();
        let (packing, by_length) = (args.packing, args.group_by_length);
        if packing.unwrap_or(false) {
            let examples = dataset.report.rows;
            dataset = dataset.packed(capacity);
            eval_dataset = eval_dataset.map(|dataset| dataset.packed(capacity));
            let (rows, tokens) = (dataset.rows(), dataset.report.tokens);
            errln!(
                "packed: {} rows hold {} examples, {:.1} % of {} tokens each are filled",
                progress::grouped(rows),
                progress::grouped(examples),
                100.0 * tokens as f64 / (rows * capacity) as f64,
                progress::grouped(capacity)
            );
        } else if by_length.unwrap_or(false) {
            dataset = dataset.grouped_by_length();
        }
        Ok(Self {
            dataset,
            eval_dataset,
            read: all,
        })
    }

    /// Tells what the data lost on the way in.
    pub fn report_losses(&self) {
        self.read.iter().for_each(Read::report_losses);
    }
}
