//! The shapes of learning rates that there are.

use serde::{Deserialize, Serialize};

/// How the learning rate changes after the warm-up, by transformers' names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SchedulerKind {
    /// Down to 0 on a line.
    #[default]
    Linear,
    /// Not at all.
    #[serde(alias = "constant_with_warmup")]
    Constant,
    /// Down to 0 on half a cosine wave.
    Cosine,
    /// Down to 0 on half a cosine wave, several times.
    CosineWithRestarts,
    /// Down to a share of the highest on half a cosine wave.
    CosineWithMinLr,
    /// The same, with a warm-up that does not begin with 0.
    CosineWarmupWithMinLr,
    /// Down to a small rate by a power of what is left.
    Polynomial,
    /// By one over the square root of the steps.
    InverseSqrt,
    /// Not at all for long, and then down in the last steps.
    #[serde(alias = "wsd")]
    WarmupStableDecay,
}
