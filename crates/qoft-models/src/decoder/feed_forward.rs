//! The feed-forward part of a block: the same layers for all tokens, or a mixture of experts.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::ops::Traced;
use qoft_core::{Result, Walk};

use super::mixture::{Mixture, MixtureConfig};
use super::mlp::{Mlp, MlpConfig};
use crate::loader::Loader;

/// The feed-forward part, described.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there is one for each block")]
#[non_exhaustive]
pub enum FeedForwardConfig {
    /// The same layers for all tokens.
    Dense(MlpConfig),
    /// Each token meets some of several experts.
    Mixture(MixtureConfig),
}

impl From<MlpConfig> for FeedForwardConfig {
    fn from(dense: MlpConfig) -> Self {
        Self::Dense(dense)
    }
}

impl From<MixtureConfig> for FeedForwardConfig {
    fn from(mixture: MixtureConfig) -> Self {
        Self::Mixture(mixture)
    }
}

/// The feed-forward part of a block.
#[derive(Module, Debug, Walk)]
#[allow(clippy::large_enum_variant, reason = "there is one for each block")]
pub enum FeedForward {
    /// The same layers for all tokens.
    Dense(Mlp),
    /// Each token meets some of several experts.
    Mixture(Mixture),
}

impl FeedForward {
    /// Makes the layers. `block` is the module path of the block.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load(loader: &Loader, block: &str, config: &FeedForwardConfig) -> Result<Self> {
        Ok(match config {
            FeedForwardConfig::Dense(dense) => Self::Dense(Mlp::load(loader, dense)?),
            FeedForwardConfig::Mixture(mixture) => {
                Self::Mixture(Mixture::load(loader, block, mixture)?)
            }
        })
    }

    /// The layers on the rows of `x`, `[rows, hidden]`. If told which rows count, a mixture tells how they are
    /// distributed. What the layers `beside` a mixture make of `x` is added.
    pub fn forward(
        &self,
        x: Traced<2>,
        counted: Option<&[bool]>,
        beside: Option<&Mlp>,
    ) -> (Tensor<2>, Option<Tensor<3>>) {
        match self {
            Self::Dense(dense) => (dense.forward(x), None),
            Self::Mixture(mixture) => mixture.forward(x, counted, beside),
        }
    }
}
