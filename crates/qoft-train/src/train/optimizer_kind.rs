//! The optimizers that there are, and what each keeps.

use serde::{Deserialize, Serialize};

use super::schedule_free;

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
    /// Schedule-free AdamW: the average of the steps in the place of a falling learning rate.
    #[serde(rename = "schedule_free_adamw")]
    ScheduleFreeAdamW,
    /// Orthogonal steps for matrices that train whole, but neither tables nor the output head; AdamW for
    /// all else.
    Muon,
}

/// What an optimizer keeps of a parameter, by the names in its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    /// Tensors of the parameter's shape.
    pub(super) tensors: &'static [&'static str],
    /// The count of the steps in which it had a gradient.
    pub(super) time: Option<&'static str>,
    /// Other numbers.
    pub(super) numbers: &'static [&'static str],
}

impl OptimizerKind {
    /// The settings of AdamW that this optimizer takes too, by their names.
    #[must_use]
    pub fn takes(self) -> &'static [&'static str] {
        match self {
            Self::AdamW | Self::Adam | Self::ScheduleFreeAdamW | Self::Muon => {
                &["adam_beta1", "adam_beta2", "adam_epsilon"]
            }
            Self::Adan => &["adam_epsilon"],
            Self::Lion => &["adam_beta1", "adam_beta2"],
            Self::Sgd => &[],
        }
    }

    /// The numbers that it keeps for each one of a parameter, at most.
    #[must_use]
    pub fn moments_per_parameter(self) -> usize {
        match self {
            // One of its tensors is the parameter itself.
            Self::ScheduleFreeAdamW => 2,
            kind => kind.moments(false).tensors.len(),
        }
    }

    /// What it keeps of a parameter, which is a matrix or not.
    pub(super) fn moments(self, is_matrix: bool) -> Moments {
        let (tensors, time): (&[&str], _) = match self {
            Self::Muon if is_matrix => (&["momentum.velocity"], None),
            Self::ScheduleFreeAdamW => (&schedule_free::TENSORS, Some(schedule_free::STEPS)),
            Self::AdamW | Self::Adam | Self::Muon => (
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
        let numbers: &[&str] = match self {
            Self::ScheduleFreeAdamW => &schedule_free::NUMBERS,
            _ => &[],
        };
        Moments {
            tensors,
            time,
            numbers,
        }
    }
}
