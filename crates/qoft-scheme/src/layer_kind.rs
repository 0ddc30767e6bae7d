//! Kinds of layers.

/// A kind of layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LayerKind {
    /// `y = x · Wᵀ + b`.
    Linear,
    /// A two-dimensional convolution.
    Conv2d,
    /// A convolution along the sequence.
    Conv1d,
    /// The rows of a table that ids name.
    Embedding,
    /// A normalization, which no rotation is for.
    Norm,
}

impl LayerKind {
    /// All kinds.
    pub const ALL: &'static [Self] = &[
        Self::Linear,
        Self::Conv2d,
        Self::Conv1d,
        Self::Embedding,
        Self::Norm,
    ];

    /// `linear`, `conv2d`, `conv1d`, `embedding`, `norm`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Conv2d => "conv2d",
            Self::Conv1d => "conv1d",
            Self::Embedding => "embedding",
            Self::Norm => "norm",
        }
    }
}
