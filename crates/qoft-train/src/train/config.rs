//! The settings of a training run.

use burn::tensor::Device;
use qoft_core::kernels::FloatFormat;
use qoft_core::ops::is_far;
use serde::{Deserialize, Serialize};

use super::schedule::{Schedule, SchedulerKind};
use crate::error::TrainError;

/// The optimizers that can be chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OptimizerKind {
    /// AdamW with betas 0.9 and 0.999 and epsilon 1e-8.
    #[default]
    AdamW,
}

/// How activations are kept for the backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ActivationDtype {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16, in half of the memory. All computing stays in `f32`.
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
    /// Batches of a step.
    pub gradient_accumulation_steps: usize,
    /// Steps of the run; wins over `num_epochs`.
    pub max_steps: Option<usize>,
    /// Times that the data is gone through.
    pub num_epochs: f64,
    /// How the learning rate changes after the warm-up.
    pub lr_scheduler: SchedulerKind,
    /// Steps in which the learning rate grows from 0.
    pub warmup_steps: usize,
    /// Weight decay of the optimizer.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm; 0: never.
    pub max_grad_norm: f64,
    /// The optimizer.
    pub optimizer: OptimizerKind,
    /// Whether the backward computes each block once more instead of keeping what happened in it:
    /// less memory, more time, the same numbers.
    pub gradient_checkpointing: bool,
    /// How activations are kept for the backward.
    pub activation_dtype: ActivationDtype,
    /// Seed of the order of the rows, of initial values and of dropout.
    pub seed: u64,
    /// Whether each epoch has its own random order of the rows.
    pub shuffle: bool,
    /// Steps from one evaluation to the next; only at the end if absent.
    pub eval_steps: Option<usize>,
    /// Whether there is an evaluation before the first step; only with `eval_steps` if absent.
    pub eval_on_start: Option<bool>,
    /// Steps from one console message to the next; the log file has all steps.
    pub logging_steps: usize,
    /// Steps from one checkpoint to the next; none if absent.
    pub save_steps: Option<usize>,
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
            warmup_steps: 0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            optimizer: OptimizerKind::AdamW,
            gradient_checkpointing: false,
            activation_dtype: ActivationDtype::F32,
            seed: 42,
            shuffle: true,
            eval_steps: None,
            eval_on_start: None,
            logging_steps: 10,
            save_steps: Some(500),
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
            ("eval_steps", self.eval_steps),
            ("logging_steps", Some(self.logging_steps)),
            ("save_steps", self.save_steps),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(invalid(key, "must be at least 1"));
        }
        let numbers = [
            ("learning_rate", self.learning_rate),
            ("num_epochs", self.num_epochs),
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
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
        Ok(())
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
            learning_rate: self.learning_rate,
            warmup: self.warmup_steps,
            total,
        }
    }
}

fn invalid(key: &'static str, reason: impl Into<String>) -> TrainError {
    TrainError::Config {
        key,
        reason: reason.into(),
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
