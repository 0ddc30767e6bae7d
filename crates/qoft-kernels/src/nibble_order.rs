//! The order of codes of 4 bits.

/// Which of the two 4-bit codes in a byte comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NibbleOrder {
    /// The one in the low half, as in a bit stream.
    LowFirst,
    /// The one in the high half.
    HighFirst,
}

impl NibbleOrder {
    /// Where the code at `index` is in a bit stream of the same bytes.
    #[inline(always)]
    pub(crate) fn place(self, index: usize) -> usize {
        match self {
            Self::LowFirst => index,
            Self::HighFirst => index ^ 1,
        }
    }
}
