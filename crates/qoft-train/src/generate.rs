//! Text that a model writes.

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft_core::Random;

use crate::error::GenerateError;
use crate::model::GenerateModel;
use crate::tokenizer::Tokenizer;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// The largest number of tokens to write.
    pub max_new_tokens: usize,
    /// How much chance there is; 0: always the likeliest token.
    pub temperature: f64,
    /// Only the likeliest tokens that have this probability together are considered.
    pub top_p: f64,
    /// Seed of the choices.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            temperature: 0.0,
            top_p: 1.0,
            seed: 42,
        }
    }
}

impl GenerateOptions {
    /// Checks each value.
    ///
    /// # Errors
    ///
    /// [`GenerateError::Option`] for the first value that is impossible.
    pub fn validate(&self) -> Result<(), GenerateError> {
        let fail = |key, reason: &str, value: f64| {
            Err(GenerateError::Option {
                key,
                reason: format!("must be {reason}, not {value}"),
            })
        };
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return fail("temperature", "a number from 0 on", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fail("top_p", "above 0 and at most 1", self.top_p);
        }
        Ok(())
    }
}

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

/// Continues `prompt` until a token that ends a text, `max_new_tokens` or the length that the
/// model is made for. `on_text` gets each piece of text as soon as it is certain.
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
    let stop_ids = tokenizer.stop_ids();
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
    let mut next = prompt.to_vec();
    let count = options.max_new_tokens.min(limit - prompt.len());
    while generated.ids.len() < count {
        let logits = model.next_logits(ids(&next, device), Some(&mut cache));
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let position = prompt.len() + generated.ids.len();
        let id =
            choose(&logits, options, &mut random).ok_or(GenerateError::NotFinite { position })?;
        generated.ids.push(id);
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
        next = vec![id];
    }
    let rest = stream.finish()?;
    if !rest.is_empty() {
        on_text(&rest);
        generated.text.push_str(&rest);
    }
    Ok(generated)
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

/// The next token; nothing if the logits are no numbers.
fn choose(logits: &[f32], options: &GenerateOptions, random: &mut Random) -> Option<u32> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    // Of equal logits the first one comes first.
    let larger = |best, value: &f32| if *value > best { *value } else { best };
    let largest = logits.iter().fold(f32::NEG_INFINITY, larger);
    let best = logits.iter().position(|logit| *logit == largest)?;
    if options.temperature == 0.0 {
        return u32::try_from(best).ok();
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let top = f64::from(logits[best]);
    let weight = |id: &usize| ((f64::from(logits[*id]) - top) / options.temperature).exp();
    let weights: Vec<f64> = order.iter().map(weight).collect();
    let wanted = weights.iter().sum::<f64>() * options.top_p;
    let mut sum = 0.0;
    let kept = weights.iter().position(|weight| {
        sum += weight;
        sum >= wanted
    });
    let kept = kept.map_or(weights.len(), |last| last + 1);
    let mut left = random.unit() * weights[..kept].iter().sum::<f64>();
    let chosen = weights[..kept].iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    u32::try_from(order[chosen.unwrap_or(kept - 1)]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, 2.0];

    fn draws(temperature: f64, top_p: f64, seed: u64) -> Vec<u32> {
        let options = GenerateOptions {
            temperature,
            top_p,
            ..GenerateOptions::default()
        };
        let mut random = Random::new(seed);
        (0..400)
            .map(|_| choose(&LOGITS, &options, &mut random).unwrap())
            .collect()
    }

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
    fn without_temperature_the_first_of_the_likeliest_is_chosen() {
        assert!(draws(0.0, 1.0, 1).iter().all(|id| *id == 1));
    }

    #[test]
    fn choices_follow_the_probabilities_and_the_seed() {
        let ids = draws(1.0, 1.0, 1);
        assert_eq!(ids, draws(1.0, 1.0, 1));
        assert_ne!(ids, draws(1.0, 1.0, 2));
        let count = |id| ids.iter().filter(|found| **found == id).count();
        assert!(count(1) > count(2) && count(2) > count(0) && count(0) > 0);
    }

    #[test]
    fn top_p_leaves_the_tail_out() {
        // The two likeliest have 0.40 each.
        assert!(draws(1.0, 0.7, 1).iter().all(|id| [1, 3].contains(id)));
        assert!(draws(1.0, 0.1, 1).iter().all(|id| *id == 1));
    }

    #[test]
    fn impossible_values_are_refused() {
        let mut random = Random::new(0);
        let options = GenerateOptions::default();
        assert_eq!(choose(&[0.0, f32::NAN], &options, &mut random), None);
        let hot = GenerateOptions {
            temperature: -1.0,
            ..options
        };
        assert!(hot.validate().is_err());
        assert!(
            GenerateOptions {
                top_p: 0.0,
                ..options
            }
            .validate()
            .is_err()
        );
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
