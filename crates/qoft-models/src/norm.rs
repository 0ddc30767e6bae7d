//! Norms of the root mean square, described.

/// What a norm of the root mean square is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct NormConfig {
    /// Added to the mean square.
    pub eps: f32,
    /// Whether the factors are 1 and the stored weight.
    pub unit_offset: bool,
}

impl NormConfig {
    /// Norms whose factors are the stored weight.
    pub fn new(eps: f32) -> Self {
        Self {
            eps,
            unit_offset: false,
        }
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
