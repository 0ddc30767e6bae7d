//! How much there is to compute in a run.

use std::num::NonZeroUsize;

use super::config::TrainConfig;
use super::plan::{Plan, order};
use crate::measured::MeasuredData;

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
    /// What a run with `config` on `data` has to compute.
    #[must_use]
    pub fn new(config: &TrainConfig, data: &impl MeasuredData) -> Self {
        let batch_size = NonZeroUsize::new(config.batch_size).unwrap_or(NonZeroUsize::MIN);
        let examples = data.batch_rows(order(config, 0), batch_size);
        let batches: Vec<(usize, usize)> = examples.iter().map(|batch| data.shape(batch)).collect();
        let largest = match data.longest() {
            // In one epoch or another the longest row is in a whole batch.
            Some(longest) => (batch_size.get().min(data.rows()), longest),
            None => (1, batches.iter().map(|batch| batch.1).max().unwrap_or(0)),
        };
        Self {
            steps: Plan::new(config, data.rows()).total,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Example};

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
}
