//! Why a packed weight cannot be made.

/// The parts of a packed weight contradict each other.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The matrix has no elements, or more than an address can count.
    #[error("impossible shape {0:?}")]
    Shape([usize; 2]),
    /// A part has another length than the shape demands.
    #[error("{part}: expected {expected} elements, found {found}")]
    Length {
        /// Which part: `codes`, `scales` …
        part: &'static str,
        /// The length that the shape demands.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// A scale or a table entry is infinite or not a number.
    #[error("{0}: a value is infinite or not a number")]
    NotFinite(&'static str),
    /// A block size of zero, or a code width that the map does not have.
    #[error("unsupported {0}")]
    Unsupported(&'static str),
    /// A group number that is too large.
    #[error("input feature {feature} is in group {group}, there are only {count}")]
    Group {
        /// The input feature.
        feature: usize,
        /// Its group.
        group: usize,
        /// How many groups there are.
        count: usize,
    },
}

/// The number of elements of a matrix.
pub(crate) fn elements(shape: [usize; 2]) -> Result<usize, WeightError> {
    shape[0]
        .checked_mul(shape[1])
        .filter(|&n| n > 0 && n <= usize::MAX / 64)
        .ok_or(WeightError::Shape(shape))
}

/// Demands the length of a part.
pub(crate) fn check_length(
    part: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), WeightError> {
    if expected == found {
        Ok(())
    } else {
        Err(WeightError::Length {
            part,
            expected,
            found,
        })
    }
}
