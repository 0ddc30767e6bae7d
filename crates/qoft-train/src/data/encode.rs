//! Rows as token ids and labels.

use std::ops::Range;
use std::sync::OnceLock;

use super::calls;
use super::error::RowError;
use super::example::{Example, IGNORED, unlearned_start};
use super::masks::{apply_mask, check_length, unpadded_length};
use super::options::{AnswerTokens, DatasetOptions, TrainOn};
use super::row::{Row, asked_of_others};
use crate::chat::{ChatTemplate, Message, Rendered, is_assistant};
use crate::tokenizer::{Encoded, Tokenizer, TokenizerError};

/// Of conversations with more messages it is found out first which part of the text is kept, since
/// the place of each turn costs renderings of messages around it.
const LONG_CONVERSATION: usize = 64;

/// A row as tokens, which may be more than what is kept of it.
#[derive(Debug)]
pub struct EncodedRow<R = Example> {
    pub(super) example: R,
    /// The bytes at the end of the row's text that were not turned into tokens.
    pub(super) unread: usize,
    /// Whether the chat template left out a call of a function.
    pub(super) lacks_call: bool,
}

impl<R> EncodedRow<R> {
    pub(super) fn new(example: R, unread: usize) -> Self {
        Self {
            example,
            unread,
            lacks_call: false,
        }
    }
}

/// Turns rows into examples.
pub struct Encoder<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    vocab_size: usize,
    /// The number of tokens that are kept of a row.
    pub(super) max_length: Option<usize>,
    pub(super) answer_tokens: AnswerTokens,
    train_on: TrainOn,
    /// Compiled when the first row of messages asks for it.
    chat: OnceLock<ChatTemplate>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, options: &DatasetOptions) -> Self {
        Self {
            tokenizer,
            vocab_size: options.vocab_size,
            max_length: options.max_length,
            answer_tokens: options.answer_tokens,
            train_on: options.train_on,
            chat: OnceLock::new(),
        }
    }

    /// The example of one row, of any length but never empty.
    pub(super) fn encode(&self, row: Row) -> Result<EncodedRow, RowError> {
        let encoded = match row {
            Row::Text(text) => self.text(&text, 0)?,
            Row::PromptCompletion { prompt, completion } => {
                let start = match self.train_on {
                    TrainOn::All => 0,
                    TrainOn::Assistant | TrainOn::Last => prompt.len(),
                };
                self.text(&format!("{prompt}{completion}"), start)?
            }
            Row::Messages {
                messages,
                variables,
                unlearned,
            } => {
                let template = self.template()?;
                if self.train_on == TrainOn::All {
                    if !unlearned.is_empty() {
                        return Err(RowError::MaskedTurns);
                    }
                    let rendered = template.render_whole(&messages, &variables)?;
                    return checked(self.chat(&rendered, &messages)?);
                }
                if let Some(index) = asked_of_others(&messages) {
                    return Err(RowError::LearnedTurn { index });
                }
                let last = messages.iter().rposition(is_assistant);
                let learns = |index: usize| {
                    let is_old = self.train_on == TrainOn::Last && Some(index) != last;
                    !is_old && !unlearned.contains(&index)
                };
                let (tokenizer, max_length) = (self.tokenizer, self.max_length);
                let is_long = messages.len() > LONG_CONVERSATION;
                let reach = |text: &str| match max_length.filter(|_| is_long) {
                    Some(count) => kept_bytes(tokenizer, text, count),
                    None => text.len(),
                };
                let rendered = template.render_assistant(&messages, &variables, &learns, &reach)?;
                self.chat(&rendered, &messages)?
            }
            Row::MessagesCompletion {
                prompt,
                completion,
                variables,
            } => {
                let template = self.template()?;
                let has_several = completion.len() > 1;
                let (messages, rendered) = match self.train_on {
                    TrainOn::All => {
                        let messages = [prompt, completion].concat();
                        let rendered = template.render_whole(&messages, &variables)?;
                        (messages, rendered)
                    }
                    TrainOn::Last if has_several => {
                        let first = prompt.len();
                        let messages = [prompt, completion].concat();
                        let last = messages.iter().rposition(is_assistant);
                        let last = last.filter(|last| *last >= first);
                        let learns = |index: usize| Some(index) == last;
                        let rendered =
                            template.render_assistant(&messages, &variables, &learns, &str::len)?;
                        (messages, rendered)
                    }
                    _ => {
                        let rendered =
                            template.render_completion(&prompt, &completion, &variables)?;
                        return checked(self.completion(&rendered, &completion)?);
                    }
                };
                self.chat(&rendered, &messages)?
            }
            Row::InputIds {
                input_ids,
                labels,
                attention_mask,
                learned_masks,
            } => {
                let mut example =
                    self.ids(&input_ids, labels.as_deref(), attention_mask.as_deref())?;
                for (name, mask) in &learned_masks {
                    apply_mask(name, mask, &mut example, input_ids.len())?;
                }
                EncodedRow::new(example, 0)
            }
            Row::Unlearned(row) => {
                let mut encoded = self.encode(*row)?;
                encoded.example.labels.fill(IGNORED);
                encoded
            }
        };
        checked(encoded)
    }

    /// A text, learned from the byte `start` on, with the special tokens of the tokenizer and the
    /// token for the end of a text. That one is learned too: the model has to know where to stop.
    fn text(&self, text: &str, start: usize) -> Result<EncodedRow, RowError> {
        let read = self.tokenizer.encode_start(text, true, self.max_length)?;
        let learned = start..text.len();
        let (mut ids, mut labels) = self.label(&read.encoded, |offsets| {
            start == 0 || holds_part(offsets, &learned)
        })?;
        if start > 0 {
            self.leave_out_prompt(&ids, &mut labels, &read.encoded, &text[..start], true)?;
        }
        let unread = read.unread;
        // The end of a text that is not read is cut off anyway.
        if let Some(eos) = self.tokenizer.eos_id().filter(|_| unread == 0) {
            if ids.last() == Some(&eos) {
                labels.pop();
            } else {
                ids.push(eos);
            }
            labels.push(self.checked_id(eos.into(), labels.len())?.1);
        }
        let example = Example::new(ids, labels);
        Ok(EncodedRow::new(example, unread))
    }

    /// A rendered conversation of some messages. The template has written all special tokens.
    fn chat(&self, rendered: &Rendered, messages: &[Message]) -> Result<EncodedRow, RowError> {
        Ok(self.labelled(rendered, messages)?.0)
    }

    /// A rendered conversation of which all behind a prompt is learned.
    fn completion(
        &self,
        rendered: &Rendered,
        completion: &[Message],
    ) -> Result<EncodedRow, RowError> {
        let (mut row, encoded) = self.labelled(rendered, completion)?;
        let start = rendered.learned.first().map_or(0, |learned| learned.start);
        let prompt = &rendered.text[..start];
        let Example { input_ids, labels } = &mut row.example;
        self.leave_out_prompt(input_ids, labels, &encoded, prompt, false)?;
        Ok(row)
    }

    /// A rendered conversation of some messages, and the places of its tokens.
    fn labelled(
        &self,
        rendered: &Rendered,
        messages: &[Message],
    ) -> Result<(EncodedRow, Encoded), RowError> {
        let read = self
            .tokenizer
            .encode_start(&rendered.text, false, self.max_length)?;
        // Tokens and ranges are in order.
        let mut ranges = rendered.learned.iter().peekable();
        let (ids, labels) = self.label(&read.encoded, |offsets| {
            while ranges.next_if(|range| range.end < offsets.0).is_some() {}
            ranges
                .clone()
                .take_while(|range| range.start <= offsets.1)
                .any(|range| holds_part(offsets, range))
        })?;
        let row = EncodedRow {
            lacks_call: calls::are_unwritten(messages, &rendered.text),
            ..EncodedRow::new(Example::new(ids, labels), read.unread)
        };
        Ok((row, read.encoded))
    }

    /// Leaves out a token that reaches across the end of `prompt` if the prompt alone has it too, as tokens that
    /// take the white space behind them do. TRL's completions begin where the ids differ.
    fn leave_out_prompt(
        &self,
        ids: &[u32],
        labels: &mut [i32],
        encoded: &Encoded,
        prompt: &str,
        add_special_tokens: bool,
    ) -> Result<(), RowError> {
        let first = unlearned_start(labels);
        let reaches = |(start, end): &(usize, usize)| *start < prompt.len() && prompt.len() < *end;
        if !encoded.offsets.get(first).is_some_and(reaches) {
            return Ok(());
        }
        let alone = self.tokenizer.encode(prompt, add_special_tokens)?;
        if alone.get(..=first) == ids.get(..=first) {
            labels[first] = IGNORED;
        }
        Ok(())
    }

    /// Labels the tokens whose offsets are learned. A text is tokenized as a whole, as the model
    /// will see it, so a token may reach across the start of what is learned; it is learned too.
    fn label(
        &self,
        encoded: &Encoded,
        mut is_learned: impl FnMut((usize, usize)) -> bool,
    ) -> Result<(Vec<u32>, Vec<i32>), RowError> {
        let mut labels = Vec::with_capacity(encoded.ids.len());
        for (position, (&id, &offsets)) in encoded.ids.iter().zip(&encoded.offsets).enumerate() {
            let (_, label) = self.checked_id(id.into(), position)?;
            labels.push(if is_learned(offsets) { label } else { IGNORED });
        }
        Ok((encoded.ids.clone(), labels))
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
        let mut found = (Vec::with_capacity(kept), Vec::with_capacity(kept));
        for (position, &id) in ids.iter().take(kept).enumerate() {
            let (id, own_label) = self.checked_id(id, position)?;
            let label = match labels.and_then(|labels| labels.get(position)) {
                Some(&label) => self.checked_label(label, position)?,
                None => own_label,
            };
            found.0.push(id);
            found.1.push(label);
        }
        Ok(Example::new(found.0, found.1))
    }

    /// `id` as a token id and as a label, if it is in the model's vocabulary.
    pub(super) fn checked_id(&self, id: i64, position: usize) -> Result<(u32, i32), RowError> {
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

    pub(super) fn template(&self) -> Result<&ChatTemplate, TokenizerError> {
        if let Some(template) = self.chat.get() {
            return Ok(template);
        }
        let template = self.tokenizer.chat_template()?;
        Ok(self.chat.get_or_init(|| template))
    }
}

fn checked(encoded: EncodedRow) -> Result<EncodedRow, RowError> {
    if encoded.example.input_ids.is_empty() {
        return Err(RowError::NoTokens);
    }
    Ok(encoded)
}

/// The bytes of a rendered conversation up to the end of its first `count` tokens; all of them if
/// it cannot be read, which is an error when the row is.
fn kept_bytes(tokenizer: &Tokenizer, text: &str, count: usize) -> usize {
    let Ok(read) = tokenizer.encode_start(text, false, Some(count)) else {
        return text.len();
    };
    let offsets = &read.encoded.offsets;
    if offsets.len() <= count {
        return text.len();
    }
    let ends = offsets[..count].iter().map(|(_, end)| *end);
    ends.max().unwrap_or(0)
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
