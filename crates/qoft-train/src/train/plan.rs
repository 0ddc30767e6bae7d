//! Which batches belong to which step.

use std::num::NonZeroUsize;

use super::config::TrainConfig;
use crate::data::Order;
use crate::error::TrainError;
use crate::model::TrainData;

/// The number of steps of a run on `rows` rows, and of each of its epochs. The last step of an
/// epoch may have fewer batches; none reaches into the next epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) total: usize,
    pub(super) steps_per_epoch: usize,
}

impl Plan {
    pub(super) fn new(config: &TrainConfig, rows: usize) -> Self {
        let batches = rows.div_ceil(config.batch_size.max(1));
        let steps_per_epoch = batches
            .div_ceil(config.gradient_accumulation_steps.max(1))
            .max(1);
        let by_epochs = || (config.num_epochs * steps_per_epoch as f64).ceil() as usize;
        Self {
            total: config.max_steps.unwrap_or_else(by_epochs),
            steps_per_epoch,
        }
    }
}

/// The batches of one step after the other, without end.
pub(super) struct Steps<'a, D: TrainData> {
    dataset: &'a D,
    config: &'a TrainConfig,
    batch_size: NonZeroUsize,
    epoch: usize,
    batches: Box<dyn ExactSizeIterator<Item = D::Batch> + 'a>,
}

impl<'a, D: TrainData> Steps<'a, D> {
    /// Starts at `step`, counted from 0.
    pub(super) fn new(
        dataset: &'a D,
        config: &'a TrainConfig,
        step: usize,
    ) -> Result<Self, TrainError> {
        if dataset.predicted() == 0 {
            return Err(TrainError::NothingToPredict);
        }
        let batch_size = NonZeroUsize::new(config.batch_size).ok_or(TrainError::Config {
            key: "batch_size",
            reason: "must be at least 1".into(),
        })?;
        let plan = Plan::new(config, dataset.rows());
        let epoch = step / plan.steps_per_epoch;
        let skipped = step % plan.steps_per_epoch * config.gradient_accumulation_steps;
        let mut batches = dataset.batches(order(config, epoch), batch_size);
        if let Some(last) = skipped.checked_sub(1) {
            batches.nth(last);
        }
        Ok(Self {
            dataset,
            config,
            batch_size,
            epoch,
            batches,
        })
    }

    /// The rows of each batch of the step after `step`, counted from 0 as in the data file.
    pub(super) fn rows(dataset: &D, config: &TrainConfig, step: usize) -> Vec<Vec<usize>> {
        let plan = Plan::new(config, dataset.rows());
        let (epoch, step) = (step / plan.steps_per_epoch, step % plan.steps_per_epoch);
        let batch_size = NonZeroUsize::new(config.batch_size).unwrap_or(NonZeroUsize::MIN);
        let batches = dataset.batch_rows(order(config, epoch), batch_size);
        let batches = batches.into_iter();
        let batches = batches.skip(step * config.gradient_accumulation_steps);
        batches.take(config.gradient_accumulation_steps).collect()
    }

    /// The batches of the next step: at least one.
    pub(super) fn next(&mut self) -> Vec<D::Batch> {
        let mut step = self.take();
        if step.is_empty() {
            self.epoch += 1;
            let order = order(self.config, self.epoch);
            self.batches = self.dataset.batches(order, self.batch_size);
            step = self.take();
        }
        step
    }

    fn take(&mut self) -> Vec<D::Batch> {
        let count = self.config.gradient_accumulation_steps;
        self.batches.by_ref().take(count).collect()
    }
}

pub(super) fn order(config: &TrainConfig, epoch: usize) -> Order {
    if config.shuffle {
        Order::Shuffled {
            seed: config.seed,
            epoch: epoch as u64,
        }
    } else {
        Order::File
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Example};

    fn dataset(rows: u32) -> Dataset {
        let example = |id: u32| Example::new(vec![id, id], vec![id as i32; 2]);
        Dataset::new((0..rows).map(example))
    }

    fn config(shuffle: bool) -> TrainConfig {
        TrainConfig {
            batch_size: 2,
            gradient_accumulation_steps: 2,
            num_epochs: 1.5,
            shuffle,
            ..TrainConfig::default()
        }
    }

    #[test]
    fn epochs_are_counted_in_whole_steps() {
        // 9 rows: 5 batches, 3 steps.
        let plan = Plan::new(&config(false), 9);
        assert_eq!(
            plan,
            Plan {
                total: 5,
                steps_per_epoch: 3
            }
        );
        let limited = TrainConfig {
            max_steps: Some(100),
            ..config(false)
        };
        assert_eq!(Plan::new(&limited, 9).total, 100);
    }

    #[test]
    fn a_step_ends_with_its_epoch() {
        let (dataset, config) = (dataset(9), config(false));
        let mut steps = Steps::new(&dataset, &config, 0).unwrap();
        let rows: Vec<usize> = (0..6)
            .map(|_| steps.next().iter().map(|b| b.batch_size).sum())
            .collect();
        assert_eq!(rows, [4, 4, 1, 4, 4, 1]);
    }

    #[test]
    fn a_later_start_gives_the_same_batches() {
        let (dataset, config) = (dataset(9), config(true));
        let mut all = Steps::new(&dataset, &config, 0).unwrap();
        let all: Vec<_> = (0..8).map(|_| all.next()).collect();
        for start in 0..8 {
            let mut steps = Steps::new(&dataset, &config, start).unwrap();
            let rest: Vec<_> = (start..8).map(|_| steps.next()).collect();
            assert_eq!(rest, all[start..]);
        }
    }

    #[test]
    fn the_rows_of_a_step_are_those_of_its_batches() {
        let (dataset, config) = (dataset(9), config(true));
        let mut steps = Steps::new(&dataset, &config, 0).unwrap();
        for step in 0..8 {
            let rows = Steps::rows(&dataset, &config, step);
            // The tokens of a row are its number, twice.
            let batches = steps.next().into_iter();
            let found =
                batches.map(|batch| batch.input_ids.chunks(2).map(|r| r[0] as usize).collect());
            assert_eq!(found.collect::<Vec<Vec<usize>>>(), rows, "step {step}");
        }
    }
}
