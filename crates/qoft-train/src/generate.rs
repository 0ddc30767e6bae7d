//! Text that a model writes.

mod options;
mod sampling;

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft_core::Random;

use crate::error::GenerateError;
use crate::model::GenerateModel;
use crate::tokenizer::{Tokenizer, TokenizerError};

pub use options::{GenerateOptions, GenerationConfig};
use sampling::choose;

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
    options.validate()?;
    let limit = model.context_length();
    check_prompt(prompt, model.vocab_size(), limit)?;
    let model = model.valid();
    let own_ends = options.eos_token_id.clone();
    let stop_ids = own_ends.unwrap_or_else(|| tokenizer.stop_ids());
    let longest = longest(&options.stop_strings);
    let mut cache = model.new_cache();
    let mut stream = tokenizer.stream();
    let mut random = Random::new(options.seed);
    let mut generated = Generated {
        ids: Vec::new(),
        text: String::new(),
        prompt_seconds: 0.0,
        seconds: 0.0,
    };
    let mut began = Instant::now();
    let mut text = prompt.to_vec();
    let mut next = prompt.to_vec();
    let length = options.max_length.unwrap_or(limit).min(limit);
    let Some(room) = length.checked_sub(prompt.len()).filter(|room| *room > 0) else {
        return Err(GenerateError::Option {
            key: "max_length",
            reason: format!("is {length}, but the prompt has {} tokens", prompt.len()),
        });
    };
    let count = options.max_new_tokens.min(room);
    while generated.ids.len() < count {
        let logits = model.next_logits(ids(&next, device), Some(&mut cache));
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let position = prompt.len() + generated.ids.len();
        let id = choose(&logits, &text, options, &mut random)
            .ok_or(GenerateError::NotFinite { position })?;
        generated.ids.push(id);
        text.push(id);
        if generated.ids.len() == 1 {
            generated.prompt_seconds = began.elapsed().as_secs_f64();
            began = Instant::now();
        } else {
            generated.seconds = began.elapsed().as_secs_f64();
        }
        if stop_ids.contains(&id) {
            break;
        }
        let piece = stream.push(id)?;
        if !piece.is_empty() {
            on_text(&piece);
            generated.text.push_str(&piece);
        }
        if ends(tokenizer, &generated.ids, &options.stop_strings, longest)? {
            break;
        }
        next = vec![id];
    }
    let rest = stream.finish()?;
    if !rest.is_empty() {
        on_text(&rest);
        generated.text.push_str(&rest);
    }
    Ok(generated)
}

/// Bytes of the longest of these strings.
fn longest(stop_strings: &[String]) -> usize {
    stop_strings.iter().map(String::len).max().unwrap_or(0)
}

/// Whether the last of these tokens completes one of these strings, special tokens included.
fn ends(
    tokenizer: &Tokenizer,
    ids: &[u32],
    stop_strings: &[String],
    longest: usize,
) -> Result<bool, TokenizerError> {
    if stop_strings.is_empty() {
        return Ok(false);
    }
    // Each token but the first has a byte at least, or is a part of a character.
    let first = ids.len().saturating_sub(longest + 4);
    let tail = tokenizer.decode(&ids[first..], false)?;
    Ok(stop_strings.iter().any(|end| tail.contains(end.as_str())))
}

fn check_prompt(prompt: &[u32], vocab_size: usize, limit: usize) -> Result<(), GenerateError> {
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocab_size) {
        return Err(GenerateError::UnknownId { id, vocab_size });
    }
    if prompt.len() >= limit {
        return Err(GenerateError::PromptTooLong {
            tokens: prompt.len(),
            limit,
        });
    }
    Ok(())
}

fn ids(ids: &[u32], device: &Device) -> Tensor<2, Int> {
    // Ids are below the size of the vocabulary, which is below `i32::MAX`.
    let values: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(values, [1, ids.len()]), device)
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

    #[test]
    fn impossible_prompts_are_refused() {
        assert!(matches!(
            check_prompt(&[], 9, 9),
            Err(GenerateError::EmptyPrompt)
        ));
        assert!(matches!(
            check_prompt(&[9], 9, 9),
            Err(GenerateError::UnknownId { id: 9, .. })
        ));
        assert!(check_prompt(&[1; 9], 9, 9).is_err());
        check_prompt(&[1; 8], 9, 9).unwrap();
    }
}
