//! The optimizers that there are, and what each keeps.

use serde::{Deserialize, Serialize};

/// The optimizers that can be chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    #[default]
    #[serde(alias = "adamw_torch", alias = "adamw_torch_fused", alias = "adamw_hf")]
    AdamW,
    /// Adam, with weight decay as a part of the gradient.
    Adam,
    /// Gradient descent without momentum.
    Sgd,
    /// Adaptive Nesterov momentum; its betas are 0.98, 0.92 and 0.99.
    Adan,
    /// Steps by signs; its betas are 0.9 and 0.99 where the settings leave AdamW's.
    #[serde(alias = "lion_32bit")]
    Lion,
}

/// What an optimizer keeps of a parameter, by Burn's names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    /// Tensors of the parameter's shape.
    pub(super) tensors: &'static [&'static str],
    /// The count of the steps in which it had a gradient.
    pub(super) time: Option<&'static str>,
}

impl OptimizerKind {
    /// The settings of AdamW that this optimizer takes too, by their names.
    #[must_use]
    pub fn takes(self) -> &'static [&'static str] {
        match self {
            Self::AdamW | Self::Adam => &["adam_beta1", "adam_beta2", "adam_epsilon"],
            Self::Adan => &["adam_epsilon"],
            Self::Lion => &["adam_beta1", "adam_beta2"],
            Self::Sgd => &[],
        }
    }

    /// The numbers that it keeps for each one of a parameter.
    #[must_use]
    pub fn moments_per_parameter(self) -> usize {
        self.moments().tensors.len()
    }

    pub(super) fn moments(self) -> Moments {
        let (tensors, time): (&[&str], _) = match self {
            Self::AdamW | Self::Adam => (
                &["momentum.moment_1", "momentum.moment_2"],
                Some("momentum.time"),
            ),
            Self::Sgd => (&[], None),
            Self::Adan => (
                &[
                    "momentum.exp_avg",
                    "momentum.exp_avg_sq",
                    "momentum.exp_avg_diff",
                    "momentum.neg_pre_grad",
                ],
                Some("momentum.time"),
            ),
            Self::Lion => (&["momentum"], None),
        };
        Moments { tensors, time }
    }
}
