//! Rows as token ids and labels.

use std::cell::OnceCell;
use std::ops::Range;

use super::error::RowError;
use super::row::Row;
use crate::chat::{ChatTemplate, Rendered};
use crate::tokenizer::{Encoded, Tokenizer, TokenizerError};

/// The label of a position at which nothing is learned.
pub const IGNORED: i32 = -100;

/// A row ready for training: token ids and what to learn at each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The token ids.
    pub input_ids: Vec<u32>,
    /// As many labels: the id itself where it is learned, [`IGNORED`] elsewhere. A model predicts
    /// the label at one position from the ids before it.
    pub labels: Vec<i32>,
}

impl Example {
    /// The number of labels that a model is asked to predict: the first position has no ids
    /// before it and does not count.
    #[must_use]
    pub fn predicted(&self) -> usize {
        self.labels
            .iter()
            .skip(1)
            .filter(|&&label| label != IGNORED)
            .count()
    }
}

/// Turns rows into examples.
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    vocab_size: usize,
    /// Compiled when the first row of messages asks for it.
    chat: OnceCell<ChatTemplate>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, vocab_size: usize) -> Self {
        Self {
            tokenizer,
            vocab_size,
            chat: OnceCell::new(),
        }
    }

    /// The example of one row, of any length but never empty.
    pub(super) fn encode(&self, row: Row) -> Result<Example, RowError> {
        let example = match row {
            Row::Text(text) => self.text(&text, 0)?,
            Row::PromptCompletion { prompt, completion } => {
                self.text(&format!("{prompt}{completion}"), prompt.len())?
            }
            Row::Messages {
                messages,
                variables,
            } => self.chat(&self.template()?.render_assistant(&messages, &variables)?)?,
            Row::MessagesCompletion {
                prompt,
                completion,
                variables,
            } => {
                let template = self.template()?;
                self.chat(&template.render_completion(&prompt, &completion, &variables)?)?
            }
            Row::InputIds {
                input_ids,
                labels,
                attention_mask,
            } => self.ids(&input_ids, labels.as_deref(), attention_mask.as_deref())?,
        };
        if example.input_ids.is_empty() {
            return Err(RowError::NoTokens);
        }
        Ok(example)
    }

    /// A text, learned from the byte `start` on, with the special tokens of the tokenizer and the
    /// token for the end of a text. That one is learned too: the model has to know where to stop.
    fn text(&self, text: &str, start: usize) -> Result<Example, RowError> {
        let encoded = self.tokenizer.encode_with_offsets(text, true)?;
        let learned = start..text.len();
        let mut example = self.label(&encoded, |offsets| {
            start == 0 || holds_part(offsets, &learned)
        })?;
        let Some(eos) = self.tokenizer.eos_id() else {
            return Ok(example);
        };
        if example.input_ids.last() == Some(&eos) {
            example.labels.pop();
        } else {
            example.input_ids.push(eos);
        }
        example
            .labels
            .push(self.checked_id(eos.into(), example.labels.len())?.1);
        Ok(example)
    }

    /// A rendered conversation. The template has written all special tokens.
    fn chat(&self, rendered: &Rendered) -> Result<Example, RowError> {
        let encoded = self.tokenizer.encode_with_offsets(&rendered.text, false)?;
        self.label(&encoded, |offsets| {
            rendered
                .learned
                .iter()
                .any(|range| holds_part(offsets, range))
        })
    }

    /// Labels the tokens whose offsets are learned. A text is tokenized as a whole, as the model
    /// will see it, so a token may reach across the start of what is learned; it is learned too.
    fn label(
        &self,
        encoded: &Encoded,
        is_learned: impl Fn((usize, usize)) -> bool,
    ) -> Result<Example, RowError> {
        let mut labels = Vec::with_capacity(encoded.ids.len());
        for (position, (&id, &offsets)) in encoded.ids.iter().zip(&encoded.offsets).enumerate() {
            let (_, label) = self.checked_id(id.into(), position)?;
            labels.push(if is_learned(offsets) { label } else { IGNORED });
        }
        Ok(Example {
            input_ids: encoded.ids.clone(),
            labels,
        })
    }

    /// A row of ids as it is, without the padding at its end.
    fn ids(
        &self,
        ids: &[i64],
        labels: Option<&[i64]>,
        mask: Option<&[i64]>,
    ) -> Result<Example, RowError> {
        check_length("labels", labels, ids.len())?;
        check_length("attention_mask", mask, ids.len())?;
        let kept = mask.map_or(Ok(ids.len()), unpadded_length)?;
        let mut example = Example {
            input_ids: Vec::with_capacity(kept),
            labels: Vec::with_capacity(kept),
        };
        for (position, &id) in ids.iter().take(kept).enumerate() {
            let (id, own_label) = self.checked_id(id, position)?;
            let label = match labels.and_then(|labels| labels.get(position)) {
                Some(&label) => self.checked_label(label, position)?,
                None => own_label,
            };
            example.input_ids.push(id);
            example.labels.push(label);
        }
        Ok(example)
    }

    /// `id` as a token id and as a label, if it is in the model's vocabulary.
    fn checked_id(&self, id: i64, position: usize) -> Result<(u32, i32), RowError> {
        match self.in_vocabulary(id) {
            Some(label) => Ok((label.unsigned_abs(), label)),
            None => Err(RowError::TokenId {
                id,
                position,
                vocab_size: self.vocab_size,
            }),
        }
    }

    fn checked_label(&self, label: i64, position: usize) -> Result<i32, RowError> {
        if label == i64::from(IGNORED) {
            return Ok(IGNORED);
        }
        self.in_vocabulary(label).ok_or(RowError::Label {
            label,
            position,
            vocab_size: self.vocab_size,
        })
    }

    fn in_vocabulary(&self, id: i64) -> Option<i32> {
        let is_inside = usize::try_from(id).is_ok_and(|id| id < self.vocab_size);
        i32::try_from(id).ok().filter(|_| is_inside)
    }

    fn template(&self) -> Result<&ChatTemplate, TokenizerError> {
        if let Some(template) = self.chat.get() {
            return Ok(template);
        }
        let template = self.tokenizer.chat_template()?;
        Ok(self.chat.get_or_init(|| template))
    }
}

/// Whether the token at the byte `offsets` holds a part of `range`.
fn holds_part(offsets: (usize, usize), range: &Range<usize>) -> bool {
    let (start, end) = offsets;
    if start == end {
        // White space that the tokenizer does not count: it stands before its offset.
        return range.start < end && end <= range.end;
    }
    start < range.end && range.start < end
}

fn check_length(
    field: &'static str,
    list: Option<&[i64]>,
    expected: usize,
) -> Result<(), RowError> {
    match list {
        Some(list) if list.len() != expected => Err(RowError::Length {
            field,
            found: list.len(),
            expected,
        }),
        _ => Ok(()),
    }
}

/// The number of positions before the padding, which has to be at the end.
fn unpadded_length(mask: &[i64]) -> Result<usize, RowError> {
    if mask.iter().any(|value| !(0..=1).contains(value)) {
        return Err(RowError::WrongType {
            field: "attention_mask",
            expected: "a list of 0 and 1",
        });
    }
    let kept = mask.iter().take_while(|&&value| value == 1).count();
    if mask[kept..].contains(&1) {
        return Err(RowError::Hole { position: kept });
    }
    Ok(kept)
}
