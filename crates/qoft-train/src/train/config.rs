//! The settings of a training run.

use burn::tensor::Device;
use qoft_core::kernels::{ComputeDtype, FloatFormat};
use qoft_core::ops::is_far;
use serde::{Deserialize, Serialize};

use super::interval::Interval;
use super::optimizer_kind::OptimizerKind;
use super::schedule::Schedule;
use super::scheduler_kind::SchedulerKind;
use super::scheduler_options::SchedulerOptions;
use super::strategy::Strategy;
use crate::error::{TrainError, invalid};
use crate::preference::PreferenceConfig;
use crate::regularization::Regularization;

/// How activations are kept for the backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ActivationDtype {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16, in half of the memory.
    Bf16,
}

impl From<ActivationDtype> for FloatFormat {
    fn from(dtype: ActivationDtype) -> Self {
        match dtype {
            ActivationDtype::F32 => Self::F32,
            ActivationDtype::Bf16 => Self::Bf16,
        }
    }
}

/// The settings of a training run, with the names and defaults of transformers'
/// `TrainingArguments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainConfig {
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Batches of a step, those of all processes that train together.
    pub gradient_accumulation_steps: usize,
    /// Steps of the run; wins over `num_epochs`.
    pub max_steps: Option<usize>,
    /// Times that the data is gone through.
    pub num_epochs: f64,
    /// How the learning rate changes after the warm-up.
    pub lr_scheduler: SchedulerKind,
    /// What that leaves open.
    pub lr_scheduler_kwargs: SchedulerOptions,
    /// Steps in which the learning rate grows from 0.
    pub warmup_steps: Interval,
    /// The same as a share of the run; counts where `warmup_steps` is 0.
    pub warmup_ratio: f64,
    /// Weight decay of the optimizer.
    pub weight_decay: f64,
    /// How long the optimizer remembers gradients; 0.9 if absent.
    pub adam_beta1: Option<f64>,
    /// How long it remembers their squares; 0.999 if absent.
    pub adam_beta2: Option<f64>,
    /// What the optimizer adds to a divisor.
    pub adam_epsilon: f64,
    /// Gradients are scaled down to this norm; 0: never.
    pub max_grad_norm: f64,
    /// How much of the probability that is asked for is spread over the whole vocabulary.
    pub label_smoothing_factor: f64,
    /// How much noise is added to embeddings (NEFTune); none if absent.
    pub neftune_noise_alpha: Option<f64>,
    /// The optimizer.
    pub optimizer: OptimizerKind,
    /// Whether the backward computes each block once more instead of keeping what happened in it:
    /// less memory, more time, the same numbers.
    pub gradient_checkpointing: bool,
    /// How activations are kept for the backward.
    pub activation_dtype: ActivationDtype,
    /// The dtype in which products with frozen weights are computed.
    pub compute_dtype: ComputeDtype,
    /// Seed of the order of the rows, of initial values and of dropout.
    pub seed: u64,
    /// Whether each epoch has its own random order of the rows.
    pub shuffle: bool,
    /// When there are evaluations, beside the one at the end; by `eval_steps` if absent.
    pub eval_strategy: Option<Strategy>,
    /// Steps from one evaluation to the next; `logging_steps` or none if absent.
    pub eval_steps: Option<Interval>,
    /// Whether there is an evaluation before the first step; with those between if absent.
    pub eval_on_start: Option<bool>,
    /// Rows of a batch of an evaluation; `batch_size` if absent.
    pub eval_batch_size: Option<usize>,
    /// Steps from one console message to the next; the log file has all steps.
    pub logging_steps: Interval,
    /// When there are checkpoints; by `save_steps` if absent.
    pub save_strategy: Option<Strategy>,
    /// Steps from one checkpoint to the next; none if absent.
    pub save_steps: Option<Interval>,
    /// Checkpoints that are kept, the best one perhaps beside them; all if absent.
    pub save_total_limit: Option<usize>,
    /// Whether the adapter of the lowest evaluation loss is the result, and not the last one.
    pub load_best_model_at_end: bool,
    /// Evaluations that are not better, after which the run ends; never if absent.
    pub early_stopping_patience: Option<usize>,
    /// By how much the loss must be lower to be better.
    pub early_stopping_threshold: f64,
    /// How a [`PreferenceModel`](crate::preference::PreferenceModel) learns, of which this is a note:
    /// a run that goes on must do the same.
    pub preference: Option<PreferenceConfig>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            learning_rate: 5e-5,
            batch_size: 8,
            gradient_accumulation_steps: 1,
            max_steps: None,
            num_epochs: 3.0,
            lr_scheduler: SchedulerKind::Linear,
            lr_scheduler_kwargs: SchedulerOptions::default(),
            warmup_steps: Interval::Steps(0),
            warmup_ratio: 0.0,
            weight_decay: 0.0,
            adam_beta1: None,
            adam_beta2: None,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            label_smoothing_factor: 0.0,
            neftune_noise_alpha: None,
            optimizer: OptimizerKind::AdamW,
            gradient_checkpointing: false,
            activation_dtype: ActivationDtype::F32,
            compute_dtype: ComputeDtype::F32,
            seed: 42,
            shuffle: true,
            eval_strategy: None,
            eval_steps: None,
            eval_on_start: None,
            eval_batch_size: None,
            logging_steps: Interval::Steps(10),
            save_strategy: None,
            save_steps: Some(Interval::Steps(500)),
            save_total_limit: None,
            load_best_model_at_end: false,
            early_stopping_patience: None,
            early_stopping_threshold: 0.0,
            preference: None,
        }
    }
}

impl TrainConfig {
    /// Checks each value.
    ///
    /// # Errors
    ///
    /// [`TrainError::Config`] for the first value that is impossible.
    pub fn validate(&self) -> Result<(), TrainError> {
        let counts = [
            ("batch_size", Some(self.batch_size)),
            (
                "gradient_accumulation_steps",
                Some(self.gradient_accumulation_steps),
            ),
            ("max_steps", self.max_steps),
            ("eval_batch_size", self.eval_batch_size),
            ("save_total_limit", self.save_total_limit),
            ("early_stopping_patience", self.early_stopping_patience),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(invalid(key, "must be at least 1"));
        }
        let intervals = [
            ("eval_steps", self.eval_steps),
            ("logging_steps", Some(self.logging_steps)),
            ("save_steps", self.save_steps),
        ];
        let never = Some(Interval::Steps(0));
        if let Some((key, _)) = intervals.iter().find(|(_, every)| *every == never) {
            return Err(invalid(
                key,
                "must be at least 1, or a share of the run above 0",
            ));
        }
        let numbers = [
            ("learning_rate", self.learning_rate),
            ("num_epochs", self.num_epochs),
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
            ("adam_epsilon", self.adam_epsilon),
            ("early_stopping_threshold", self.early_stopping_threshold),
            (
                "neftune_noise_alpha",
                self.neftune_noise_alpha.unwrap_or(0.0),
            ),
        ];
        if let Some((key, value)) = numbers.iter().find(|(_, v)| !v.is_finite() || *v < 0.0) {
            return Err(invalid(
                key,
                format!("must be a number from 0 on, not {value}"),
            ));
        }
        if self.max_steps.is_none() && self.num_epochs == 0.0 {
            return Err(invalid("num_epochs", "must be above 0"));
        }
        if self.early_stopping_threshold > 0.0 && self.early_stopping_patience.is_none() {
            let reason = "it needs early_stopping_patience";
            return Err(invalid("early_stopping_threshold", reason));
        }
        let shares = [
            ("warmup_ratio", Some(self.warmup_ratio)),
            ("label_smoothing_factor", Some(self.label_smoothing_factor)),
            ("adam_beta1", self.adam_beta1),
            ("adam_beta2", self.adam_beta2),
        ];
        for (key, share) in shares {
            if let Some(share) = share.filter(|share| !(0.0..1.0).contains(share)) {
                return Err(invalid(
                    key,
                    format!("must be from 0 to below 1, not {share}"),
                ));
            }
        }
        let betas = [
            ("adam_beta1", self.adam_beta1),
            ("adam_beta2", self.adam_beta2),
        ];
        let taken = self.optimizer.takes();
        let mut betas = betas.iter();
        if let Some((key, _)) = betas.find(|(key, beta)| beta.is_some() && !taken.contains(key)) {
            return Err(invalid(key, "this optimizer has no such value"));
        }
        let averages = self.optimizer == OptimizerKind::ScheduleFreeAdamW;
        if averages && self.adam_beta1 == Some(0.0) {
            return Err(invalid("adam_beta1", "must be above 0 with this optimizer"));
        }
        if let Some(preference) = &self.preference {
            preference.validate(self.batch_size)?;
        }
        let options = self.lr_scheduler_kwargs;
        let checked = options.check(self.lr_scheduler, self.learning_rate);
        checked.map_err(|reason| invalid("lr_scheduler_kwargs", reason))
    }

    /// Checks what only evaluation data makes possible.
    ///
    /// # Errors
    ///
    /// [`TrainError::Config`] for a value that would have no effect.
    pub fn validate_evaluation(&self, has_data: bool) -> Result<(), TrainError> {
        if has_data && self.evaluates() {
            return Ok(());
        }
        let needing = [
            ("eval_steps", self.eval_steps.is_some() && self.evaluates()),
            (
                "eval_strategy",
                self.eval_strategy.is_some() && self.evaluates(),
            ),
            ("eval_on_start", self.eval_on_start == Some(true)),
            ("load_best_model_at_end", self.load_best_model_at_end),
            (
                "early_stopping_patience",
                self.early_stopping_patience.is_some(),
            ),
        ];
        match needing.iter().find(|(_, needs)| *needs) {
            None => Ok(()),
            Some((key, _)) => Err(invalid(
                key,
                "there is no evaluation data (--eval-data, --val-size)",
            )),
        }
    }

    /// What training does against learning by heart.
    pub(super) fn regularization(&self) -> Regularization {
        let noise = self.neftune_noise_alpha.unwrap_or(0.0);
        Regularization::new(self.label_smoothing_factor, noise)
    }

    /// The two betas of the optimizer.
    pub(super) fn betas(&self) -> [f64; 2] {
        [
            self.adam_beta1.unwrap_or(0.9),
            self.adam_beta2.unwrap_or(0.999),
        ]
    }

    /// Checks what depends on the device.
    ///
    /// # Errors
    ///
    /// [`TrainError::Config`] for a value that would have no effect there.
    pub(super) fn validate_on(&self, device: &Device) -> Result<(), TrainError> {
        let rounded = self.activation_dtype != ActivationDtype::F32;
        if rounded && !self.gradient_checkpointing && is_far(device) {
            let reason = "GPUs round only the inputs of blocks that gradient_checkpointing keeps; \
                          use both, or f32";
            return Err(invalid("activation_dtype", reason));
        }
        Ok(())
    }

    /// The learning rates of a run of `total` steps.
    #[must_use]
    pub fn schedule(&self, total: usize) -> Schedule {
        Schedule {
            kind: self.lr_scheduler,
            options: self.lr_scheduler_kwargs,
            learning_rate: self.learning_rate,
            warmup: match (self.optimizer, self.lr_scheduler) {
                // The optimizer warms up, and transformers' constant rate does not.
                (OptimizerKind::ScheduleFreeAdamW, SchedulerKind::Constant) => 0,
                _ => self.warmup(total),
            },
            total,
        }
    }

    /// The steps of a run of `total` steps in which the learning rate grows.
    pub(super) fn warmup(&self, total: usize) -> usize {
        match self.warmup_steps {
            Interval::Steps(0) => (self.warmup_ratio * total as f64).ceil() as usize,
            given => given.steps(total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_values_are_named() {
        TrainConfig::default().validate().unwrap();
        let check = |json: &str| {
            let config: TrainConfig = serde_json::from_str(json).unwrap();
            config.validate().unwrap_err().to_string()
        };
        assert!(check(r#"{"batch_size": 0}"#).contains("`batch_size`: must be at least 1"));
        assert!(check(r#"{"max_steps": 0}"#).contains("`max_steps`"));
        assert!(check(r#"{"learning_rate": -1}"#).contains("`learning_rate`"));
        assert!(check(r#"{"num_epochs": 0}"#).contains("`num_epochs`"));
        assert!(serde_json::from_str::<TrainConfig>(r#"{"learning_rat": 1}"#).is_err());
    }

    #[test]
    fn settings_survive_a_file() {
        let config = TrainConfig {
            lr_scheduler: SchedulerKind::Cosine,
            max_steps: Some(3),
            ..TrainConfig::default()
        };
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""lr_scheduler":"cosine""#) && text.contains(r#""adamw""#));
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), config);
    }
}
