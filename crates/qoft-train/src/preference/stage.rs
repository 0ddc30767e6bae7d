//! What is learned from preferences.

use serde::{Deserialize, Serialize};

/// A way to learn from preferences, by the usual names for the stages of a training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Stage {
    /// Direct preference optimization (Rafailov and others 2023), of pairs, with a reference model.
    #[default]
    Dpo,
    /// Odds ratio preference optimization (Hong and others 2024), of pairs: the better answers are learned
    /// as examples, too.
    Orpo,
    /// Kahneman-Tversky optimization (Ethayarajh and others 2024), of single answers, with a reference
    /// model.
    Kto,
    /// Simple preference optimization (Meng and others 2024), of pairs.
    Simpo,
}

impl Stage {
    /// Whether it compares with a reference model.
    #[must_use]
    pub fn has_reference(self) -> bool {
        matches!(self, Self::Dpo | Self::Kto)
    }
}
