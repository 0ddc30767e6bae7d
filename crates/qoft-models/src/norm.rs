//! Norms, described.

/// What a norm is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct NormConfig {
    /// What it divides by, and what it adds.
    pub kind: NormKind,
    /// Added to the mean square or the variance.
    pub eps: f32,
    /// Whether the factors are 1 and the stored weight.
    pub unit_offset: bool,
}

/// What a norm divides by, and what it adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormKind {
    /// The root of the mean square.
    RootMeanSquare,
    /// torch's `LayerNorm`: the mean is taken away, and the root of the variance divides.
    Layer {
        /// Whether a bias is added.
        bias: bool,
    },
}

impl NormConfig {
    /// Norms of the root mean square, whose factors are the stored weight.
    pub fn new(eps: f32) -> Self {
        Self {
            kind: NormKind::RootMeanSquare,
            eps,
            unit_offset: false,
        }
    }

    /// The same of another kind.
    #[must_use]
    pub fn of_kind(self, kind: NormKind) -> Self {
        Self { kind, ..self }
    }

    /// The same with factors that are 1 and the stored weight.
    #[must_use]
    pub fn with_unit_offset(self) -> Self {
        Self {
            unit_offset: true,
            ..self
        }
    }
}
