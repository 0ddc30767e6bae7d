//! Options that are given and, beside others, have no effect.

use anyhow::Result;
use qoft::train::train::{Interval, OptimizerKind, SchedulerKind, Strategy, TrainConfig};

use super::values::object;
use super::{TrainArgs, optimizers};

impl TrainArgs {
    /// A line for each option that is given and does nothing in a run with this `config`, or less than elsewhere.
    pub fn unused(&self, config: &TrainConfig) -> Result<Vec<String>> {
        let options = object(self)?;
        let is_given = |name: &str| options.get(name).is_some_and(|value| !value.is_null());
        let is_on = |name: &str| options.get(name).and_then(|value| value.as_bool());
        let mut unused = Vec::new();
        let mut note = |name: &str, beside: &str| {
            if is_given(name) {
                unused.push(format!(
                    "--{} has no effect with {beside}",
                    name.replace('_', "-")
                ));
            }
        };
        for (what, strategy) in [
            ("eval", config.eval_strategy),
            ("save", config.save_strategy),
        ] {
            let strategy = match strategy {
                Some(Strategy::No) => "no",
                Some(Strategy::Epoch) => "epoch",
                _ => continue,
            };
            note(
                &format!("{what}_steps"),
                &format!("--{what}-strategy {strategy}"),
            );
        }
        let optimizer = self.training.optimizer.as_deref().unwrap_or("adamw");
        if !config.optimizer.takes().contains(&"adam_epsilon") {
            note("adam_epsilon", &format!("--optimizer {optimizer}"));
        }
        if config.max_steps.is_some() {
            note("num_epochs", "--max-steps");
        }
        if config.warmup_steps != Interval::Steps(0) {
            note("warmup_ratio", "--warmup-steps");
        }
        if is_on("use_cayley_neumann") == Some(false) {
            note("num_cayley_neumann_terms", "--use-cayley-neumann false");
        }
        if is_on("coft") != Some(true) && self.adapter_config.is_none() {
            note("eps", "--coft false");
        }
        unused.extend(optimizers::note(optimizer));
        let averages = config.optimizer == OptimizerKind::ScheduleFreeAdamW;
        if averages && config.lr_scheduler == SchedulerKind::Linear {
            unused.push(
                "--optimizer schedule_free_adamw averages its steps in the place of a falling rate; \
                 --lr-scheduler constant is made for it"
                    .to_owned(),
            );
        }
        Ok(unused)
    }
}
