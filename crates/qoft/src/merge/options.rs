//! How a checkpoint is merged.

use qoft_core::kernels::FloatFormat;

use super::search::LayerSearch;

/// What the merged checkpoint is like.
#[derive(Clone, Copy)]
pub enum MergeTarget<'a> {
    /// Dense weights in this format.
    Dense(FloatFormat),
    /// Every layer in the scheme that it had, with codes chosen by the search that this gives it.
    SameScheme(&'a dyn LayerSearch),
}

impl MergeTarget<'_> {
    /// The format of a dense checkpoint.
    pub(super) fn dense_format(self) -> Option<FloatFormat> {
        match self {
            Self::Dense(format) => Some(format),
            Self::SameScheme(_) => None,
        }
    }
}

/// How a checkpoint is merged. A [`MergeTarget`] alone is one with the defaults.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct MergeOptions<'a> {
    /// What the merged checkpoint is like.
    pub target: MergeTarget<'a>,
    /// The least share of what adapters change, over all layers, that has to be in the written
    /// weights, see [`MergeReport::change_kept`](super::MergeReport::change_kept). With less, the
    /// merge fails with [`Error::LittleKept`](qoft_core::Error::LittleKept). Not heeded where
    /// weights are written dense; with 0 everything is written.
    pub min_kept: f64,
}

impl<'a> MergeOptions<'a> {
    /// The share of the change that has to be kept unless another one is given.
    pub const MIN_KEPT: f64 = 0.5;

    /// Into `target`, with [`Self::MIN_KEPT`].
    pub fn new(target: MergeTarget<'a>) -> Self {
        Self {
            target,
            min_kept: Self::MIN_KEPT,
        }
    }

    /// The same with another share that has to be kept; with 0 everything is written.
    #[must_use]
    pub fn min_kept(self, min_kept: f64) -> Self {
        Self { min_kept, ..self }
    }
}

impl<'a> From<MergeTarget<'a>> for MergeOptions<'a> {
    fn from(target: MergeTarget<'a>) -> Self {
        Self::new(target)
    }
}
