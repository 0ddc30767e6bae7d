//! The losses of DPO and KTO.

use serde::{Deserialize, Serialize};

/// A loss, by TRL's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossType {
    /// The logistic loss of DPO, with smoothed labels that of conservative DPO.
    Sigmoid,
    /// A hinge (SLiC).
    Hinge,
    /// The squared distance of IPO, of log-probabilities for each token.
    Ipo,
    /// EXO, which needs a `label_smoothing`.
    ExoPair,
    /// NCA.
    NcaPair,
    /// Robust DPO, whose `label_smoothing` is the share of pairs that are the wrong way round.
    Robust,
    /// BCO.
    BcoPair,
    /// SPPO.
    SppoHard,
    /// AOT, of pairs.
    Aot,
    /// AOT, of answers that are sorted apart.
    AotUnpaired,
    /// APO for answers that are better than those of the model.
    ApoZero,
    /// APO for answers that are worse.
    ApoDown,
    /// DiscoPOP.
    Discopop,
    /// The cross-entropy of the better answers.
    Sft,
    /// [`Self::Sigmoid`] of log-probabilities for each token.
    SigmoidNorm,
    /// The loss of KTO.
    Kto,
    /// APO of single answers, for the stage `kto`.
    ApoZeroUnpaired,
}

impl LossType {
    /// Whether it is one of single answers.
    pub(super) fn is_unpaired(self) -> bool {
        matches!(self, Self::Kto | Self::ApoZeroUnpaired)
    }
}
