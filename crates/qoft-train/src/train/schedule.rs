//! Learning rates, as transformers' schedulers compute them (`transformers/optimization.py`).

use std::f64::consts::PI;

use super::scheduler_kind::SchedulerKind;
use super::scheduler_options::{Curve, SchedulerOptions};

/// The learning rate of each step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Schedule {
    /// The shape.
    pub kind: SchedulerKind,
    /// What the shape leaves open.
    pub options: SchedulerOptions,
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
        match step < self.warmup {
            true => self.warming(step),
            false => self.after(step - self.warmup),
        }
    }

    fn warming(&self, step: usize) -> f64 {
        let (step, warmup) = (step as f64, self.warmup as f64);
        let progress = step / warmup;
        match (self.kind, self.options.warmup_lr_rate) {
            (SchedulerKind::CosineWarmupWithMinLr, None) => (step + 1.0) / warmup,
            (SchedulerKind::CosineWarmupWithMinLr, Some(first)) => {
                first + (1.0 - first) * step / (warmup - 1.0).max(1.0)
            }
            (SchedulerKind::WarmupStableDecay, _) => {
                let curve = self.options.warmup_type.unwrap_or(Curve::Linear);
                self.above_minimum(match curve {
                    Curve::Linear => progress,
                    Curve::Cosine => 0.5 * (1.0 - (PI * progress).cos()),
                    Curve::OneMinusSqrt => 1.0 - (1.0 - progress).sqrt(),
                })
            }
            _ => progress,
        }
    }

    /// The factor of a step, counted from the end of the warm-up.
    fn after(&self, step: usize) -> f64 {
        let options = &self.options;
        let length = self.total.saturating_sub(self.warmup).max(1) as f64;
        let step = step as f64;
        let progress = step / length;
        let wave = |progress: f64| {
            let cycles = options.num_cycles.unwrap_or(0.5);
            0.5 * (1.0 + (PI * cycles * 2.0 * progress).cos())
        };
        match self.kind {
            SchedulerKind::Constant => 1.0,
            SchedulerKind::Linear => (1.0 - progress).max(0.0),
            SchedulerKind::Cosine => wave(progress).max(0.0),
            SchedulerKind::CosineWithRestarts if progress >= 1.0 => 0.0,
            SchedulerKind::CosineWithRestarts => {
                let cycles = options.num_cycles.unwrap_or(1.0);
                0.5 * (1.0 + (PI * (cycles * progress).fract()).cos())
            }
            SchedulerKind::CosineWithMinLr => self.above_minimum(wave(progress)).max(0.0),
            SchedulerKind::CosineWarmupWithMinLr => {
                self.above_minimum(wave((step + 1.0) / length)).max(0.0)
            }
            SchedulerKind::Polynomial => {
                let end = options.lr_end() / self.learning_rate;
                let left = (1.0 - progress).max(0.0);
                (1.0 - end) * left.powf(options.power.unwrap_or(1.0)) + end
            }
            SchedulerKind::InverseSqrt => {
                let scale = match (options.timescale, self.warmup) {
                    (Some(scale), _) => scale as f64,
                    (None, 0) => INVERSE_SQRT_SCALE,
                    (None, warmup) => warmup as f64,
                };
                1.0 / ((step + scale) / scale).sqrt()
            }
            SchedulerKind::WarmupStableDecay => self.decaying(step, length, &wave),
        }
    }

    /// The last part of a schedule that was stable before.
    fn decaying(&self, step: f64, length: f64, wave: &dyn Fn(f64) -> f64) -> f64 {
        let decay = self.options.num_decay_steps.unwrap_or(0) as f64;
        let stable = match self.options.num_stable_steps {
            Some(stable) => stable as f64,
            None => length - decay,
        };
        let progress = (step - stable) / decay.max(1.0);
        if step < stable {
            1.0
        } else if step < stable + decay {
            let curve = self.options.decay_type.unwrap_or(Curve::Cosine);
            self.above_minimum(match curve {
                Curve::Linear => 1.0 - progress,
                Curve::Cosine => wave(progress),
                Curve::OneMinusSqrt => 1.0 - progress.sqrt(),
            })
            .max(0.0)
        } else {
            self.options.minimum(self.learning_rate)
        }
    }

    /// A factor from 0 to 1 as one from the smallest to 1.
    fn above_minimum(&self, factor: f64) -> f64 {
        let minimum = self.options.minimum(self.learning_rate);
        factor * (1.0 - minimum) + minimum
    }
}

/// The time scale of `inverse_sqrt` without a warm-up.
const INVERSE_SQRT_SCALE: f64 = 10_000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        kind: SchedulerKind,
        kwargs: SchedulerOptions,
        learning_rate: f64,
        warmup: usize,
        total: usize,
        rates: Vec<f64>,
    }

    #[test]
    fn rates_are_those_of_transformers() {
        let text = std::fs::read(qoft_fixtures::path("optim/schedules.json")).unwrap();
        let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
        assert!(cases.len() > 15);
        for case in cases {
            let schedule = Schedule {
                kind: case.kind,
                options: case.kwargs,
                learning_rate: case.learning_rate,
                warmup: case.warmup,
                total: case.total,
            };
            case.kwargs.check(case.kind, case.learning_rate).unwrap();
            for (step, expected) in case.rates.into_iter().enumerate() {
                let found = schedule.at(step);
                let error = (found - expected).abs();
                assert!(error < 1e-12, "{schedule:?} {step}: {found} {expected}");
            }
        }
    }

    #[test]
    fn a_warm_up_longer_than_the_run_just_grows() {
        let schedule = Schedule {
            kind: SchedulerKind::Linear,
            options: SchedulerOptions::default(),
            learning_rate: 2.0,
            warmup: 10,
            total: 3,
        };
        let rates: Vec<f64> = (0..3).map(|step| schedule.at(step)).collect();
        assert_eq!(rates, [0.0, 0.2, 0.4]);
    }
}
