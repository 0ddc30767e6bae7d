//! The settings of the training loop, by the names of transformers' `TrainingArguments`.

use anyhow::Result;
use clap::Args;
use qoft::train::train::{Interval, TrainConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::named;
use super::optimizers::optimizer_here;
use super::values::{finite, object};

/// Options of the training loop. All but `no_shuffle` have the same name in [`TrainConfig`].
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// The highest learning rate [default: 5e-5].
    #[arg(long, value_parser = finite)]
    pub learning_rate: Option<f64>,
    /// Rows of a batch [default: 8].
    #[arg(long)]
    pub batch_size: Option<usize>,
    /// Batches of a step [default: 1].
    #[arg(long)]
    pub gradient_accumulation_steps: Option<usize>,
    /// Steps of the run; wins over --num-epochs.
    // In transformers -1 means that they are not limited.
    #[arg(long, value_parser = clap::value_parser!(i64).range(-1..))]
    pub max_steps: Option<i64>,
    /// Times that the data is gone through [default: 3].
    #[arg(long, value_parser = finite)]
    pub num_epochs: Option<f64>,
    /// `linear`, `constant`, `cosine`, `cosine_with_restarts`, `cosine_with_min_lr`,
    /// `cosine_warmup_with_min_lr`, `polynomial`, `inverse_sqrt` or `warmup_stable_decay`
    /// [default: linear].
    #[arg(long)]
    pub lr_scheduler: Option<String>,
    /// What the scheduler leaves open, by transformers' names: `num_cycles`, `min_lr`, `power` and
    /// others, such as `{"num_cycles": 3}`.
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub lr_scheduler_kwargs: Option<Value>,
    /// Steps in which the learning rate grows from 0, or a share of the run below 1 [default: 0].
    #[arg(long)]
    pub warmup_steps: Option<Interval>,
    /// The same as a share of the run [default: 0].
    #[arg(long, value_parser = finite)]
    pub warmup_ratio: Option<f64>,
    /// Weight decay [default: 0].
    #[arg(long, value_parser = finite)]
    pub weight_decay: Option<f64>,
    /// Gradients are scaled down to this norm; 0 turns that off [default: 1].
    #[arg(long, value_parser = finite)]
    pub max_grad_norm: Option<f64>,
    /// Share of the probability of each token that training spreads over the whole vocabulary
    /// [default: 0].
    #[arg(long, value_parser = finite)]
    pub label_smoothing_factor: Option<f64>,
    /// Noise on the embeddings in training (NEFTune), such as 5 [default: none].
    #[arg(long, value_parser = finite)]
    pub neftune_noise_alpha: Option<f64>,
    /// `adamw`, `adam`, `sgd`, `adan`, `lion`, `schedule_free_adamw` or `muon` [default: adamw].
    #[arg(long)]
    pub optimizer: Option<String>,
    /// How long the optimizer remembers gradients [default: 0.9].
    #[arg(long, value_parser = finite)]
    pub adam_beta1: Option<f64>,
    /// How long it remembers their squares [default: 0.999, lion: 0.99].
    #[arg(long, value_parser = finite)]
    pub adam_beta2: Option<f64>,
    /// What it adds to a divisor [default: 1e-8].
    #[arg(long, value_parser = finite)]
    pub adam_epsilon: Option<f64>,
    /// Keep only the input of each block and compute the block once more for its backward.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub gradient_checkpointing: Option<bool>,
    /// Number format in which activations are kept for the backward, `f32` or `bf16`; that of products is
    /// --compute-dtype [default: f32].
    #[arg(long)]
    pub activation_dtype: Option<String>,
    /// Seed of the order of the rows, of initial values and of dropout [default: 42].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Take the rows in the order of the file.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub no_shuffle: Option<bool>,

    /// `no`, or when to evaluate before the end: each so many `steps`, or after each `epoch`
    /// [default: by --eval-steps].
    #[arg(long, help_heading = "Reports")]
    pub eval_strategy: Option<String>,
    /// Steps from one evaluation to the next, or a share of the run below 1 [default: only at the end].
    #[arg(long, help_heading = "Reports")]
    pub eval_steps: Option<Interval>,
    /// Evaluate before the first step, too [default: if there are evaluations before the end].
    #[arg(long, help_heading = "Reports", num_args = 0..=1, default_missing_value = "true")]
    pub eval_on_start: Option<bool>,
    /// Rows of a batch of an evaluation [default: --batch-size].
    #[arg(long, help_heading = "Reports")]
    pub eval_batch_size: Option<usize>,
    /// Steps from one console message to the next, or a share of the run below 1 [default: 10].
    #[arg(long, help_heading = "Reports")]
    pub logging_steps: Option<Interval>,
    /// `no`, or when to write a checkpoint: each so many `steps`, or after each `epoch`
    /// [default: steps].
    #[arg(long, help_heading = "Reports")]
    pub save_strategy: Option<String>,
    /// Steps from one checkpoint to the next, or a share of the run below 1 [default: 500].
    #[arg(long, help_heading = "Reports")]
    pub save_steps: Option<Interval>,
    /// Checkpoints that stay; older ones are removed [default: all].
    #[arg(long, help_heading = "Reports")]
    pub save_total_limit: Option<usize>,
    /// Take the adapter with the lowest evaluation loss, not the last one.
    #[arg(long, help_heading = "Reports", num_args = 0..=1, default_missing_value = "true")]
    pub load_best_model_at_end: Option<bool>,
    /// End the run when so many evaluations in a row were not better.
    #[arg(long, help_heading = "Reports", value_name = "EVALUATIONS")]
    pub early_stopping_patience: Option<usize>,
    /// By how much the loss has to be lower to be better [default: 0].
    #[arg(long, help_heading = "Reports", value_parser = finite)]
    pub early_stopping_threshold: Option<f64>,
}

impl TrainingArgs {
    /// The settings of the training loop.
    pub fn config(&self) -> Result<TrainConfig> {
        let mut given = object(self)?;
        given.retain(|name, value| name != "no_shuffle" && !value.is_null());
        if self.max_steps == Some(-1) {
            given.remove("max_steps");
        }
        if let Some(optimizer) = &self.optimizer {
            given.insert("optimizer".into(), optimizer_here(optimizer)?.into());
        }
        given.insert("shuffle".into(), (!self.no_shuffle.unwrap_or(false)).into());
        let config: TrainConfig = named::read(&object(&TrainConfig::default())?, &given)?;
        config.validate()?;
        Ok(config)
    }
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_not_limited_by_minus_one() {
        let steps = |max_steps| {
            let args = TrainingArgs {
                max_steps: Some(max_steps),
                ..TrainingArgs::default()
            };
            args.config().map(|config| config.max_steps)
        };
        assert_eq!(steps(-1).unwrap(), None);
        assert_eq!(steps(7).unwrap(), Some(7));
        let error = steps(-2).unwrap_err().to_string();
        assert!(error.contains("--max-steps -2"), "{error}");
    }
}
