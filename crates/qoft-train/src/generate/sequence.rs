//! One sequence that is written.

use qoft_core::{AdapterChoice, Random};
use qoft_models::Continuation;

use super::logprobs::Logprobs;
use super::options::GenerateOptions;
use super::sampling::choose;
use crate::error::GenerateError;
use crate::model::GenerateModel;
use crate::tokenizer::{TextStream, Tokenizer, TokenizerError};

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WriteRequest {
    /// The ids to continue.
    pub prompt: Vec<u32>,
    /// How tokens are chosen, and when the text ends.
    pub options: GenerateOptions,
    /// The adapters that compute; `None`: those that are active. Of sequences that are written together either
    /// all have a choice or none.
    pub adapters: Option<AdapterChoice>,
    /// If it is to be told how likely tokens are: for how many of the likeliest ones beside each token itself.
    pub top_logprobs: Option<usize>,
}

impl WriteRequest {
    /// The prompt is continued by the active adapters.
    pub fn new(prompt: Vec<u32>, options: GenerateOptions) -> Self {
        Self {
            prompt,
            options,
            adapters: None,
            top_logprobs: None,
        }
    }

    /// The same by these adapters.
    #[must_use]
    pub fn with_adapters(self, adapters: AdapterChoice) -> Self {
        Self {
            adapters: Some(adapters),
            ..self
        }
    }

    /// The same with the probabilities of tokens and of so many of the likeliest ones.
    #[must_use]
    pub fn with_logprobs(self, top: usize) -> Self {
        Self {
            top_logprobs: Some(top),
            ..self
        }
    }
}

/// Why a sequence ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// A token that ends a text.
    Token,
    /// A string that ends a text.
    String,
    /// There is no room for more tokens.
    Length,
}

/// A token that was written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Written {
    /// Its id.
    pub id: u32,
    /// The text that is certain now and was not before, without special tokens; it may be empty.
    pub text: String,
    /// How likely it was, if that was asked for.
    pub logprobs: Option<Logprobs>,
    /// Why it is the last one, if it is.
    pub end: Option<End>,
}

/// A sequence on its way.
pub(super) struct Sequence<'t, C> {
    pub key: u64,
    pub adapters: Option<AdapterChoice>,
    /// All ids, the prompt first.
    text: Vec<u32>,
    prompt: usize,
    /// How many of them the model has seen.
    seen: usize,
    /// Tokens at most.
    count: usize,
    options: GenerateOptions,
    top_logprobs: Option<usize>,
    ends: Vec<u32>,
    longest_stop: usize,
    cache: C,
    random: Random,
    stream: Option<TextStream<'t>>,
}

impl<'t, C> Sequence<'t, C> {
    /// Checks what is asked for.
    pub fn new<M: GenerateModel<Cache = C>>(
        key: u64,
        request: WriteRequest,
        model: &M,
        tokenizer: &'t Tokenizer,
    ) -> Result<Self, GenerateError> {
        let WriteRequest {
            prompt,
            options,
            adapters,
            top_logprobs,
        } = request;
        options.validate()?;
        let limit = model.context_length();
        check_prompt(&prompt, model.vocab_size(), limit)?;
        let length = options.max_length.unwrap_or(limit).min(limit);
        let Some(room) = length.checked_sub(prompt.len()).filter(|room| *room > 0) else {
            return Err(GenerateError::Option {
                key: "max_length",
                reason: format!("is {length}, but the prompt has {} tokens", prompt.len()),
            });
        };
        let ends = options.eos_token_id.clone();
        let longest_stop = options.stop_strings.iter().map(String::len).max();
        Ok(Self {
            key,
            adapters,
            prompt: prompt.len(),
            text: prompt,
            seen: 0,
            count: options.max_new_tokens.min(room),
            top_logprobs,
            ends: ends.unwrap_or_else(|| tokenizer.stop_ids()),
            longest_stop: longest_stop.unwrap_or(0),
            cache: model.new_cache(),
            random: Random::new(options.seed),
            stream: Some(tokenizer.stream()),
            options,
        })
    }

    /// Whether nothing is to be written at all.
    pub fn is_over(&self) -> bool {
        self.count == 0
    }

    /// How many tokens the model has to see next.
    pub fn unseen(&self) -> usize {
        self.text.len() - self.seen
    }

    /// The tokens that the model has to see next.
    pub fn next(&mut self) -> Continuation<'_, C> {
        Continuation {
            ids: &self.text[self.seen..],
            cache: &mut self.cache,
            adapters: self.adapters.clone(),
        }
    }

    /// Chooses the token behind those that the model has seen now.
    pub fn choose(
        &mut self,
        logits: &[f32],
        tokenizer: &Tokenizer,
    ) -> Result<Written, GenerateError> {
        let position = self.text.len();
        let (options, random) = (&self.options, &mut self.random);
        let id = choose(logits, &self.text, self.prompt, options, random)
            .ok_or(GenerateError::NotFinite { position })?;
        let logprobs = self.top_logprobs.map(|top| Logprobs::of(logits, id, top));
        self.seen = self.text.len();
        self.text.push(id);
        let mut text = String::new();
        let end = match self.ends.contains(&id) {
            true => Some(End::Token),
            false => {
                if let Some(stream) = &mut self.stream {
                    text = stream.push(id)?;
                }
                match self.stops(tokenizer)? {
                    true => Some(End::String),
                    false if self.text.len() - self.prompt >= self.count => Some(End::Length),
                    false => None,
                }
            }
        };
        if let Some(stream) = self.stream.take_if(|_| end.is_some()) {
            text += &stream.finish()?;
        }
        Ok(Written {
            id,
            text,
            logprobs,
            end,
        })
    }

    /// Whether the last tokens complete a string that ends the text, special tokens included.
    fn stops(&self, tokenizer: &Tokenizer) -> Result<bool, TokenizerError> {
        let stop_strings = &self.options.stop_strings;
        if stop_strings.is_empty() {
            return Ok(false);
        }
        let ids = &self.text[self.prompt..];
        // Each token but the first has a byte at least, or is a part of a character.
        let first = ids.len().saturating_sub(self.longest_stop + 4);
        let tail = tokenizer.decode(&ids[first..], false)?;
        Ok(stop_strings.iter().any(|end| tail.contains(end.as_str())))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
