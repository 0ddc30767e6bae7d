//! Which evaluation of a run was the best, and for how long none was better.

use super::config::TrainConfig;

/// How the evaluations of a run stand.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Standing {
    /// The step after which the best evaluation was, and its loss.
    pub(super) best: Option<(usize, f64)>,
    /// Evaluations since the last one that was better by enough.
    stale: usize,
}

impl Standing {
    /// Of (step, loss) in the order of the steps, of which an evaluation before the first step does not
    /// count. An evaluation is better by enough if it is better than the best one by more than
    /// `early_stopping_threshold` (transformers' `EarlyStoppingCallback`).
    pub(super) fn of(evaluations: &[(usize, f64)], config: &TrainConfig) -> Self {
        let (mut standing, mut lowest) = (Self::default(), f64::INFINITY);
        for &(step, loss) in evaluations.iter().filter(|(step, _)| *step > 0) {
            match lowest - loss > config.early_stopping_threshold {
                true => standing.stale = 0,
                false => standing.stale += 1,
            }
            if loss < lowest {
                lowest = loss;
                standing.best = Some((step, loss));
            }
        }
        standing
    }

    /// Whether the run has waited long enough for a better one.
    pub(super) fn is_over(&self, config: &TrainConfig) -> bool {
        let patience = config.early_stopping_patience;
        patience.is_some_and(|patience| self.stale >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_over_when_its_patience_is() {
        let mut config = TrainConfig {
            early_stopping_patience: Some(2),
            ..TrainConfig::default()
        };
        let losses = [(0, 1.0), (5, 3.0), (10, 2.0), (15, 1.9), (20, 2.5)];
        let standing = Standing::of(&losses, &config);
        assert_eq!((standing.best, standing.stale), (Some((15, 1.9)), 1));
        assert!(!standing.is_over(&config));
        config.early_stopping_threshold = 0.5;
        let standing = Standing::of(&losses, &config);
        assert_eq!((standing.best, standing.stale), (Some((15, 1.9)), 2));
        assert!(standing.is_over(&config));
        assert_eq!(Standing::of(&losses[..1], &config), Standing::default());
    }
}
