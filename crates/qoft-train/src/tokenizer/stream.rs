//! Text from token ids that come one by one.

use super::{Tokenizer, TokenizerError};

/// Decodes a growing row of ids and hands out text as soon as it is certain.
///
/// One character can need several tokens, so a piece of text that still ends in an incomplete
/// character is held back until the next ids complete it.
#[derive(Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The ids whose text is not handed out, behind some that give them context: a decoder may
    /// treat the first token of a row in its own way.
    ids: Vec<u32>,
    /// How many of `ids` are context.
    context: usize,
}

impl<'t> TextStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self {
            tokenizer,
            ids: Vec::new(),
            context: 0,
        }
    }

    /// Adds one id; the answer is the text that is complete now, which may be empty.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let text = self.pending()?;
        if text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.ids.drain(..self.context);
        self.context = self.ids.len();
        Ok(text)
    }

    /// Ends the row; the answer is the text that was held back.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String, TokenizerError> {
        self.pending()
    }

    /// The text of the ids behind the context.
    fn pending(&self) -> Result<String, TokenizerError> {
        let context = self.tokenizer.decode(&self.ids[..self.context], true)?;
        let all = self.tokenizer.decode(&self.ids, true)?;
        Ok(all.get(context.len()..).unwrap_or_default().to_owned())
    }
}
