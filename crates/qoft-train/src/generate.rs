//! Text that a model writes.

mod logprobs;
mod options;
mod sampling;
mod sequence;
mod writer;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Instant;

use burn::tensor::Device;

use crate::error::GenerateError;
use crate::model::GenerateModel;
use crate::tokenizer::Tokenizer;

pub use logprobs::Logprobs;
pub use options::{GenerateOptions, GenerationConfig};
pub use sequence::{End, WriteRequest, Written};
pub use writer::{SequenceKey, Writer};

/// What a model wrote.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Generated {
    /// The token ids behind the prompt; the last one may be one that ends a text.
    pub ids: Vec<u32>,
    /// Their text, without special tokens.
    pub text: String,
    /// How long the prompt took, up to the first of the ids.
    pub prompt_seconds: f64,
    /// How long all ids after the first took.
    pub seconds: f64,
}

impl Generated {
    /// Ids a second once the prompt was read; nothing where there is only one.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        let later = self.ids.len().checked_sub(1).filter(|count| *count > 0)?;
        Some(later as f64 / self.seconds.max(1e-9))
    }
}

/// Continues `prompt` until a token or string that ends a text, the largest number of tokens or the length
/// that the model is made for. `on_text` gets each piece of text as soon as it is certain.
///
/// `device` is that of the model's weights.
///
/// # Errors
///
/// [`GenerateError`], for options or a prompt that cannot be used.
pub fn generate(
    model: &impl GenerateModel,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    options: &GenerateOptions,
    device: &Device,
    on_text: &mut dyn FnMut(&str),
) -> Result<Generated, GenerateError> {
    let model = model.valid();
    let request = WriteRequest::new(prompt.to_vec(), options.clone());
    let mut writer = Writer::new(tokenizer, device);
    let mut generated = Generated {
        ids: Vec::new(),
        text: String::new(),
        prompt_seconds: 0.0,
        seconds: 0.0,
    };
    writer.join(&model, request)?;
    let mut began = Instant::now();
    let mut result = Ok(());
    while !writer.is_empty() && result.is_ok() {
        writer.step(&model, &mut |_, written| match written {
            Err(error) => result = Err(error),
            Ok(written) => {
                if generated.ids.is_empty() {
                    generated.prompt_seconds = began.elapsed().as_secs_f64();
                    began = Instant::now();
                } else {
                    generated.seconds = began.elapsed().as_secs_f64();
                }
                generated.ids.push(written.id);
                if !written.text.is_empty() {
                    on_text(&written.text);
                    generated.text.push_str(&written.text);
                }
            }
        });
    }
    result.map(|()| generated)
}

/// Continues several prompts, at most `batch_size` at a time: where one ends, the next one begins. Each gets
/// what [`generate`] makes of it alone. `on_done` gets the results with their index, in the order in which they
/// end; what it fails with ends it all.
///
/// # Errors
///
/// That of the first prompt that cannot be continued, or that of `on_done`.
pub fn generate_each<E: From<GenerateError>>(
    model: &impl GenerateModel,
    tokenizer: &Tokenizer,
    requests: impl IntoIterator<Item = WriteRequest>,
    batch_size: NonZeroUsize,
    device: &Device,
    on_done: &mut dyn FnMut(usize, WrittenText) -> Result<(), E>,
) -> Result<(), E> {
    let model = model.valid();
    let mut writer = Writer::new(tokenizer, device);
    let mut requests = requests.into_iter().enumerate();
    let mut running: BTreeMap<SequenceKey, (usize, WrittenText)> = BTreeMap::new();
    loop {
        let room = batch_size.get() - writer.len();
        for (index, request) in requests.by_ref().take(room) {
            match writer.join(&model, request)? {
                Some(key) => drop(running.insert(key, (index, WrittenText::default()))),
                None => on_done(index, WrittenText::default())?,
            }
        }
        if writer.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        writer.step(&model, &mut |key, written| match written {
            Err(error) => result = Err(E::from(error)),
            Ok(written) => {
                let Some((_, text)) = running.get_mut(&key) else {
                    return;
                };
                text.ids.push(written.id);
                text.text.push_str(&written.text);
                text.end = written.end;
                if written.end.is_some()
                    && let Some((index, text)) = running.remove(&key)
                    && result.is_ok()
                {
                    result = on_done(index, text);
                }
            }
        });
        result?;
    }
}

/// A text that was written among others.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct WrittenText {
    /// The token ids behind the prompt; the last one may be one that ends a text.
    pub ids: Vec<u32>,
    /// Their text, without special tokens.
    pub text: String,
    /// Why it ended; nothing if no token was asked for.
    pub end: Option<End>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_leaves_the_prompt_out() {
        let generated = |count| Generated {
            ids: vec![7; count],
            text: String::new(),
            prompt_seconds: 3.0,
            seconds: 2.0,
        };
        assert_eq!(generated(5).tokens_per_second(), Some(2.0));
        assert_eq!(generated(1).tokens_per_second(), None);
        assert_eq!(generated(0).tokens_per_second(), None);
    }
}
