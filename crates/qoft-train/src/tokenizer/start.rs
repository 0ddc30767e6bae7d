//! The first tokens of a text that may be very long.

use super::{Encoded, Tokenizer, TokenizerError};

/// A text that is not longer is always read whole.
const READ_WHOLE: usize = 1 << 17;

/// The bytes of text that are read first for each token that is wanted.
const BYTES_PER_TOKEN: usize = 16;

/// The first tokens of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// The tokens that are wanted, and some more unless they are all.
    pub(crate) encoded: Encoded,
    /// The bytes at the end of the text that were not read.
    pub(crate) unread: usize,
}

impl Tokenizer {
    /// As [`Tokenizer::encode_with_offsets`], but of a long text no more is read than the first
    /// `count` tokens need: it is cut at two places, and where both parts start with the same
    /// tokens these do not depend on what follows.
    pub(crate) fn encode_start(
        &self,
        text: &str,
        add_special_tokens: bool,
        count: Option<usize>,
    ) -> Result<Start, TokenizerError> {
        let mut size = count.map_or(usize::MAX, |count| count.saturating_mul(BYTES_PER_TOKEN));
        size = size.max(READ_WHOLE / 2);
        while let Some(count) = count.filter(|_| size < text.len() / 2) {
            let cut = text.floor_char_boundary(size);
            let shorter = self.encode_with_offsets(&text[..cut], add_special_tokens)?;
            let longer = text.floor_char_boundary(size + size / 4);
            let longer = self.encode_with_offsets(&text[..longer], add_special_tokens)?;
            let is_enough = shorter.ids.len() > count
                && shorter.ids.get(..count) == longer.ids.get(..count)
                && shorter.offsets.get(..count) == longer.offsets.get(..count);
            if is_enough {
                return Ok(Start {
                    encoded: shorter,
                    unread: text.len() - cut,
                });
            }
            size = size.saturating_mul(4);
        }
        Ok(Start {
            encoded: self.encode_with_offsets(text, add_special_tokens)?,
            unread: 0,
        })
    }
}
