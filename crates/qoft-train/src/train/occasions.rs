//! When a run evaluates and saves.

use super::config::TrainConfig;
use super::plan::Plan;
use super::strategy::Strategy;

impl TrainConfig {
    /// Whether a run with these settings evaluates at all.
    pub(super) fn evaluates(&self) -> bool {
        self.eval_strategy != Some(Strategy::No)
    }

    /// Whether there is an evaluation before the first step.
    pub(super) fn evaluates_at_start(&self) -> bool {
        let between = self.eval_steps.is_some() || self.eval_strategy.is_some();
        self.evaluates() && self.eval_on_start.unwrap_or(between)
    }

    /// Whether there is an evaluation after `step` steps. Without a strategy, `eval_steps` is one.
    pub(super) fn evaluates_after(&self, step: usize, plan: &Plan) -> bool {
        let strategy = self.eval_strategy;
        let steps = self.eval_steps.map(|_| Strategy::Steps);
        let every = self.eval_steps.unwrap_or(self.logging_steps);
        let strategy = strategy.or(steps).unwrap_or(Strategy::No);
        is_due(strategy, every.steps(plan.total), step, plan)
    }

    /// Whether there is a checkpoint after `step` steps.
    pub(super) fn saves_after(&self, step: usize, plan: &Plan) -> bool {
        let strategy = self.save_strategy.unwrap_or(Strategy::Steps);
        match (strategy, self.save_steps) {
            (Strategy::Steps, None) => false,
            (strategy, every) => {
                let every = every.map_or(1, |every| every.steps(plan.total));
                is_due(strategy, every, step, plan)
            }
        }
    }

    /// Whether there is a message after `step` steps.
    pub(super) fn logs_after(&self, step: usize, plan: &Plan) -> bool {
        is_due(
            Strategy::Steps,
            self.logging_steps.steps(plan.total),
            step,
            plan,
        )
    }
}

fn is_due(strategy: Strategy, every: usize, step: usize, plan: &Plan) -> bool {
    match strategy {
        Strategy::No => false,
        Strategy::Steps => step.is_multiple_of(every),
        Strategy::Epoch => step.is_multiple_of(plan.steps_per_epoch) || step == plan.total,
    }
}

#[cfg(test)]
mod tests {
    use super::super::interval::Interval;
    use super::*;

    #[test]
    fn strategies_say_when() {
        let plan = Plan {
            total: 8,
            steps_per_epoch: 3,
        };
        let steps = |due: &dyn Fn(usize) -> bool| (1..=8).filter(|&s| due(s)).collect::<Vec<_>>();
        let evals = |config: TrainConfig| steps(&|step| config.evaluates_after(step, &plan));
        let with = |change: fn(&mut TrainConfig)| {
            let mut config = TrainConfig::default();
            change(&mut config);
            config
        };
        assert_eq!(evals(with(|_| ())), [0; 0]);
        assert_eq!(evals(with(|c| c.eval_steps = Some(4.into()))), [4, 8]);
        let by_logs = with(|c| {
            c.eval_strategy = Some(Strategy::Steps);
            c.logging_steps = 5.into();
        });
        assert_eq!(evals(by_logs), [5]);
        let epochs = with(|c| c.eval_strategy = Some(Strategy::Epoch));
        assert!(epochs.evaluates_at_start());
        assert_eq!(evals(epochs), [3, 6, 8]);
        let never = with(|c| {
            c.eval_strategy = Some(Strategy::No);
            c.eval_steps = Some(1.into());
        });
        assert!(!never.evaluates() && !never.evaluates_at_start());
        assert_eq!(evals(never), [0; 0]);
        let saves = |config: TrainConfig| steps(&|step| config.saves_after(step, &plan));
        assert_eq!(saves(with(|c| c.save_steps = Some(3.into()))), [3, 6]);
        assert_eq!(saves(with(|c| c.save_steps = None)), [0; 0]);
        let half = with(|c| c.save_steps = Interval::new(0.5));
        assert_eq!(saves(half), [4, 8]);
        let logs = with(|c| c.logging_steps = Interval::Share(0.3));
        assert_eq!(steps(&|step| logs.logs_after(step, &plan)), [3, 6]);
        assert_eq!(
            saves(with(|c| c.save_strategy = Some(Strategy::Epoch))),
            [3, 6, 8]
        );
        assert_eq!(
            saves(with(|c| c.save_strategy = Some(Strategy::No))),
            [0; 0]
        );
    }
}
