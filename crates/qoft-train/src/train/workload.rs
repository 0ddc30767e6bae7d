//! How much there is to compute in a run.

use std::num::NonZeroUsize;

use super::config::TrainConfig;
use super::plan::{Plan, order};
use crate::data::{Dataset, Example};
use crate::model::TrainData;

/// How much there is to compute in a run, padding counted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Workload {
    /// Steps of the run.
    pub steps: usize,
    /// Rows and length in tokens of each batch of its first epoch.
    pub batches: Vec<(usize, usize)>,
    /// Rows and length of the largest batch that it can have.
    pub largest: (usize, usize),
    batches_per_step: usize,
}

impl Workload {
    /// What a run with `config` on `dataset` has to compute.
    #[must_use]
    pub fn new(config: &TrainConfig, dataset: &Dataset) -> Self {
        let batch_size = NonZeroUsize::new(config.batch_size).unwrap_or(NonZeroUsize::MIN);
        let rows = dataset.batch_rows(order(config, 0), batch_size);
        let lengths = |batch: &Vec<usize>| -> Vec<usize> {
            let length = |&row: &usize| dataset.examples[row].input_ids.len();
            batch.iter().map(length).collect()
        };
        let shape = |batch: &Vec<usize>| match dataset.is_packed() {
            true => (1, lengths(batch).iter().sum()),
            false => (batch.len(), lengths(batch).into_iter().max().unwrap_or(0)),
        };
        let batches: Vec<(usize, usize)> = rows.iter().map(shape).collect();
        let largest = match dataset.is_packed() {
            true => (1, batches.iter().map(|b| b.1).max().unwrap_or(0)),
            // In one epoch or another the longest row is in a whole batch.
            false => {
                let rows = batch_size.get().min(dataset.examples.len());
                (rows, dataset.report.longest)
            }
        };
        Self {
            steps: Plan::new(config, dataset.rows()).total,
            batches,
            largest,
            batches_per_step: config.gradient_accumulation_steps.max(1),
        }
    }

    /// Tokens of the whole run, padding among them.
    #[must_use]
    pub fn tokens(&self) -> f64 {
        self.sum(|(rows, length)| (rows * length) as f64)
    }

    /// The sum of what each batch of the whole run costs, if all epochs are as the first.
    pub fn sum(&self, cost: impl Fn((usize, usize)) -> f64) -> f64 {
        let costs: Vec<f64> = self.batches.iter().map(|&batch| cost(batch)).collect();
        let epoch: f64 = costs.iter().sum();
        let per_epoch = costs.len().div_ceil(self.batches_per_step).max(1);
        let (epochs, left) = (self.steps / per_epoch, self.steps % per_epoch);
        let left = costs.iter().take(left * self.batches_per_step);
        epoch * epochs as f64 + left.sum::<f64>()
    }
}

/// Rows of `length` tokens taken from the longest of `dataset` again and again, for a run of `batches`
/// batches of so many `rows` that costs as much as one on such data.
#[must_use]
pub fn rows_of_length(dataset: &Dataset, rows: usize, length: usize, batches: usize) -> Dataset {
    let longest = dataset.examples.iter().max_by_key(|e| e.input_ids.len());
    let (ids, labels) = longest.map_or((&[0][..], &[0][..]), |e| (&e.input_ids, &e.labels));
    let again = |count: usize| -> Example {
        let ids = ids.iter().copied().cycle().take(count);
        let labels = labels.iter().copied().cycle().take(count);
        let mut example = Example::new(ids.collect(), labels.collect());
        // Where nothing is learned nothing is computed backwards.
        if example.predicted() == 0
            && let (Some(label), Some(&id)) = (example.labels.last_mut(), example.input_ids.last())
        {
            *label = id as i32;
        }
        example
    };
    Dataset::new((0..rows * batches).map(|_| again(length.max(2))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(lengths: &[usize]) -> Dataset {
        let example = |&n: &usize| Example::new(vec![1; n], vec![1; n]);
        Dataset::new(lengths.iter().map(example))
    }

    #[test]
    fn all_batches_of_a_run_are_counted() {
        let config = TrainConfig {
            batch_size: 2,
            gradient_accumulation_steps: 2,
            num_epochs: 2.0,
            shuffle: false,
            ..TrainConfig::default()
        };
        let rows = dataset(&[3, 5, 4, 4, 7]);
        let load = Workload::new(&config, &rows);
        assert_eq!(load.batches, [(2, 5), (2, 4), (1, 7)]);
        assert_eq!((load.largest, load.steps), ((2, 7), 4));
        assert_eq!(load.tokens(), 2.0 * (10.0 + 8.0 + 7.0));
        let shorter = TrainConfig {
            max_steps: Some(3),
            ..config.clone()
        };
        assert_eq!(Workload::new(&shorter, &rows).tokens(), 25.0 + 18.0);
        let packed = Workload::new(&config, &rows.packed(9));
        assert_eq!((packed.batches.len(), packed.largest), (2, (1, 16)));
    }

    #[test]
    fn rows_are_made_longer() {
        let rows = rows_of_length(&dataset(&[3, 2]), 2, 5, 3);
        assert_eq!((rows.examples.len(), rows.report.longest), (6, 5));
        assert!(rows.report.predicted > 0);
    }
}
