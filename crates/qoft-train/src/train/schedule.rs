//! Learning rates, as transformers' schedulers compute them.

use serde::{Deserialize, Serialize};

/// How the learning rate changes after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SchedulerKind {
    /// Down to 0 on a line.
    #[default]
    Linear,
    /// Not at all.
    Constant,
    /// Down to 0 on half a cosine wave.
    Cosine,
}

/// The learning rate of each step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Schedule {
    /// The shape.
    pub kind: SchedulerKind,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps in which the learning rate grows from 0.
    pub warmup: usize,
    /// Steps of the run.
    pub total: usize,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0.
    #[must_use]
    pub fn at(&self, step: usize) -> f64 {
        self.learning_rate * self.factor(step)
    }

    fn factor(&self, step: usize) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        let length = self.total.saturating_sub(self.warmup).max(1) as f64;
        match self.kind {
            SchedulerKind::Constant => 1.0,
            SchedulerKind::Linear => self.total.saturating_sub(step) as f64 / length,
            SchedulerKind::Cosine => {
                let progress = (step - self.warmup) as f64 / length;
                (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: SchedulerKind, warmup: usize, total: usize) -> Vec<f64> {
        let schedule = Schedule {
            kind,
            learning_rate: 2.0,
            warmup,
            total,
        };
        (0..total).map(|step| schedule.at(step)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn linear() {
        assert_close(&rates(SchedulerKind::Linear, 0, 4), &[2.0, 1.5, 1.0, 0.5]);
        assert_close(
            &rates(SchedulerKind::Linear, 2, 6),
            &[0.0, 1.0, 2.0, 1.5, 1.0, 0.5],
        );
    }

    #[test]
    fn cosine() {
        let half = std::f64::consts::FRAC_1_SQRT_2;
        assert_close(
            &rates(SchedulerKind::Cosine, 1, 5),
            &[0.0, 2.0, 1.0 + half, 1.0, 1.0 - half],
        );
    }

    #[test]
    fn constant() {
        assert_close(&rates(SchedulerKind::Constant, 0, 2), &[2.0, 2.0]);
        assert_close(&rates(SchedulerKind::Constant, 2, 4), &[0.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn a_warmup_longer_than_the_run_never_reaches_the_top() {
        assert_close(&rates(SchedulerKind::Linear, 4, 2), &[0.0, 0.5]);
    }
}
