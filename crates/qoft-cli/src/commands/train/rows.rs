//! The rows of a training and of its evaluations.

use anyhow::{Context, Result};
use qoft::train::data::{DataRow, Rows, Split, ValSize};

use crate::args::{DataArg, TrainArgs};
use crate::data::{self, For};
use crate::print::errln;
use crate::progress;

/// What is trained on, and what is evaluated.
pub struct TrainingData<D> {
    /// What is learned.
    pub dataset: D,
    /// What is evaluated.
    pub eval_dataset: Option<D>,
    /// Tells what was lost when it was read.
    losses: Box<dyn Fn()>,
}

impl<D> TrainingData<D> {
    /// The same with other values in place of both.
    pub fn map<E>(self, mut of: impl FnMut(D) -> Result<E>) -> Result<TrainingData<E>> {
        Ok(TrainingData {
            dataset: of(self.dataset)?,
            eval_dataset: self.eval_dataset.map(of).transpose()?,
            losses: self.losses,
        })
    }

    /// Tells what the data lost on the way in.
    pub fn report_losses(&self) {
        (self.losses)();
    }
}

impl TrainingData<()> {
    /// Reads what the options name; `seed` chooses rows where some are to be chosen.
    pub fn of_rows<R: DataRow + 'static>(
        args: &TrainArgs,
        sources: &[DataArg],
        reading: For,
        seed: u64,
    ) -> Result<TrainingData<Rows<R>>> {
        let mut read = data::read::<R>(sources, &args.reading, reading, seed)?;
        read.tell();
        let mut dataset = read.take();
        let mut all = vec![read];
        let mut eval_dataset = None;
        if let Some(path) = &args.eval_data {
            let source = DataArg {
                path: path.clone(),
                weight: None,
            };
            let reading = For {
                split: Split::Validation,
                ..reading
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
        if args.group_by_length.unwrap_or(false) {
            dataset = dataset.grouped_by_length();
        }
        Ok(TrainingData {
            dataset,
            eval_dataset,
            losses: Box::new(move || all.iter().for_each(data::Read::report_losses)),
        })
    }
}
