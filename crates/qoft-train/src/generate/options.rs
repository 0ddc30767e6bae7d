//! How text is generated: the options of transformers, and what a model's folder says of them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::GenerateError;

/// How tokens are chosen, and when a text ends.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Whether tokens are drawn; otherwise each is the likeliest one.
    pub do_sample: bool,
    /// The largest number of tokens to write.
    pub max_new_tokens: usize,
    /// The largest number of tokens with those of the prompt.
    pub max_length: Option<usize>,
    /// Logits of tokens that are in the text already are divided by this where they are positive, and
    /// multiplied where they are negative.
    pub repetition_penalty: f64,
    /// Taken from the logit of each token that was written already, whatever the prompt has: OpenAI's and vLLM's.
    /// From -2 to 2.
    pub presence_penalty: f64,
    /// The same for each time that the token was written.
    pub frequency_penalty: f64,
    /// Added to the logits of tokens, by their ids, before all else; each from -100 to 100.
    pub logit_bias: BTreeMap<u32, f64>,
    /// Divides the logits of draws.
    pub temperature: f64,
    /// Only so many of the likeliest tokens are drawn from, and those that are as likely as the last of
    /// them; 0: all.
    pub top_k: usize,
    /// Of these only the likeliest that have this probability together.
    pub top_p: f64,
    /// Of these only those that have this part of the likeliest one's probability.
    pub min_p: f64,
    /// The tokens that end a text; by default [`Tokenizer::stop_ids`](crate::tokenizer::Tokenizer::stop_ids).
    pub eos_token_id: Option<Vec<u32>>,
    /// Strings that end a text, of which they are the end then.
    pub stop_strings: Vec<String>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for GenerateOptions {
    /// Those of transformers, but for the number of tokens: the likeliest token each time.
    fn default() -> Self {
        Self {
            do_sample: false,
            max_new_tokens: 128,
            max_length: None,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            min_p: 0.0,
            eos_token_id: None,
            stop_strings: Vec::new(),
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
        let check = |key, value: f64, possible: bool, reason: &str| match possible {
            true => Ok(()),
            false => Err(GenerateError::Option {
                key,
                reason: format!("must be {reason}, not {value}"),
            }),
        };
        let (penalty, heat) = (self.repetition_penalty, self.temperature);
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let reason = "a number above 0";
        check("repetition_penalty", penalty, positive(penalty), reason)?;
        for (key, value) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            check(key, value, (-2.0..=2.0).contains(&value), "from -2 to 2")?;
        }
        for value in self.logit_bias.values().copied() {
            let possible = (-100.0..=100.0).contains(&value);
            check(
                "logit_bias",
                value,
                possible,
                "from -100 to 100 for each token",
            )?;
        }
        if self.do_sample {
            let reason = "a number above 0, or 0 for the likeliest token each time";
            check("temperature", heat, positive(heat), reason)?;
        }
        let possible = self.top_p > 0.0 && self.top_p <= 1.0;
        check("top_p", self.top_p, possible, "above 0 and at most 1")?;
        let possible = (0.0..=1.0).contains(&self.min_p);
        check("min_p", self.min_p, possible, "from 0 to 1")?;
        if self.stop_strings.iter().any(String::is_empty) {
            let (key, reason) = ("stop_strings", "one of them is empty".to_owned());
            return Err(GenerateError::Option { key, reason });
        }
        Ok(())
    }
}

/// The options of `generation_config.json`, or those that somebody chose: of both, the ones that are
/// there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the options")]
#[non_exhaustive]
pub struct GenerationConfig {
    pub do_sample: Option<bool>,
    pub max_new_tokens: Option<usize>,
    pub max_length: Option<usize>,
    pub repetition_penalty: Option<f64>,
    pub temperature: Option<f64>,
    pub top_k: Option<usize>,
    pub top_p: Option<f64>,
    pub min_p: Option<f64>,
    #[serde(default, deserialize_with = "one_or_several")]
    pub stop_strings: Option<Vec<String>>,
    /// All other keys.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// Keys that change what transformers writes and that are not implemented, with their values that
/// change nothing.
const OTHERS: [(&str, &[f64]); 18] = [
    ("bad_words_ids", &[]),
    ("begin_suppress_tokens", &[]),
    ("dola_layers", &[]),
    ("epsilon_cutoff", &[0.0, 1.0]),
    ("eta_cutoff", &[0.0, 1.0]),
    ("exponential_decay_length_penalty", &[]),
    ("forced_bos_token_id", &[]),
    ("forced_eos_token_id", &[]),
    ("guidance_scale", &[1.0]),
    ("min_length", &[0.0]),
    ("min_new_tokens", &[0.0]),
    ("no_repeat_ngram_size", &[0.0]),
    ("num_beams", &[1.0]),
    ("penalty_alpha", &[0.0]),
    ("sequence_bias", &[]),
    ("suppress_tokens", &[]),
    ("top_h", &[]),
    ("typical_p", &[1.0]),
];

impl GenerationConfig {
    /// What the `generation_config.json` of a folder says; nothing if there is none. The tokens that end
    /// a text are the tokenizer's matter.
    ///
    /// # Errors
    ///
    /// [`GenerateError::File`] if it cannot be read, or a value is of another type.
    pub fn read(folder: &Path) -> Result<Self, GenerateError> {
        let path = folder.join("generation_config.json");
        let fail = |reason: String| GenerateError::File {
            path: path.clone(),
            reason,
        };
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| fail(error.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(fail(error.to_string())),
        }
    }

    /// Keys that change what transformers writes and that are not implemented.
    pub fn not_implemented(&self) -> impl Iterator<Item = &'static str> + '_ {
        let changes = |(key, none): &(&'static str, &[f64])| match self.others.get(*key) {
            None | Some(Value::Null) => false,
            Some(value) => !value.as_f64().is_some_and(|value| none.contains(&value)),
        };
        OTHERS.into_iter().filter(changes).map(|(key, _)| key)
    }

    /// The same, with what `defaults` has for keys that are missing here. A number of new tokens stands
    /// above a length.
    #[must_use]
    pub fn or(self, defaults: Self) -> Self {
        Self {
            do_sample: self.do_sample.or(defaults.do_sample),
            max_length: match self.max_new_tokens {
                Some(_) => self.max_length,
                None => self.max_length.or(defaults.max_length),
            },
            max_new_tokens: match self.max_length {
                Some(_) => self.max_new_tokens,
                None => self.max_new_tokens.or(defaults.max_new_tokens),
            },
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty),
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            stop_strings: self.stop_strings.or(defaults.stop_strings),
            others: self.others,
        }
    }

    /// The options, with the defaults of [`GenerateOptions`] for what is missing.
    #[must_use]
    pub fn options(self) -> GenerateOptions {
        let default = GenerateOptions::default();
        GenerateOptions {
            do_sample: self.do_sample.unwrap_or(default.do_sample),
            max_new_tokens: match (self.max_new_tokens, self.max_length) {
                (Some(count), _) => count,
                (None, Some(_)) => usize::MAX,
                (None, None) => default.max_new_tokens,
            },
            max_length: self.max_length.filter(|_| self.max_new_tokens.is_none()),
            repetition_penalty: self
                .repetition_penalty
                .unwrap_or(default.repetition_penalty),
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            stop_strings: self.stop_strings.unwrap_or_default(),
            ..default
        }
    }
}

/// A string, or a list of strings.
fn one_or_several<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Strings {
        One(String),
        Several(Vec<String>),
    }
    let strings = Option::<Strings>::deserialize(deserializer)?;
    Ok(strings.map(|strings| match strings {
        Strings::One(one) => vec![one],
        Strings::Several(several) => several,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: Value) -> GenerationConfig {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_somebody_chose_stands_above_the_file() {
        let file = config(
            json!({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": null,
            "max_length": 90, "stop_strings": "end", "eos_token_id": [1, 2]}),
        );
        let chosen = config(json!({"temperature": 0.9}));
        let options = chosen.or(file.clone()).options();
        assert!(options.do_sample);
        assert_eq!((options.temperature, options.top_k), (0.9, 20));
        assert_eq!((options.top_p, options.min_p), (1.0, 0.0));
        assert_eq!(options.max_length, Some(90));
        assert_eq!(options.stop_strings, ["end"]);
        let options = config(json!({"max_new_tokens": 7})).or(file).options();
        assert_eq!((options.max_new_tokens, options.max_length), (7, None));
        assert_eq!(config(json!({})).options(), GenerateOptions::default());
    }

    #[test]
    fn keys_that_would_change_the_text_are_told() {
        let file = config(
            json!({"num_beams": 4, "typical_p": 1.0, "bad_words_ids": [[5]],
            "min_length": 0, "cache_implementation": "hybrid", "guidance_scale": null}),
        );
        let told: Vec<&str> = file.not_implemented().collect();
        assert_eq!(told, ["bad_words_ids", "num_beams"]);
    }

    #[test]
    fn impossible_values_are_refused() {
        for (file, key) in [
            (
                json!({"do_sample": true, "temperature": 0.0}),
                "temperature",
            ),
            (json!({"top_p": 0.0}), "top_p"),
            (json!({"min_p": 1.5}), "min_p"),
            (json!({"repetition_penalty": -1.0}), "repetition_penalty"),
            (json!({"stop_strings": ["a", ""]}), "stop_strings"),
        ] {
            let error = config(file).options().validate().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let with = |change: fn(&mut GenerateOptions)| {
            let mut options = GenerateOptions::default();
            change(&mut options);
            options.validate()
        };
        assert!(with(|options| options.presence_penalty = 2.5).is_err());
        assert!(with(|options| options.frequency_penalty = f64::NAN).is_err());
        assert!(with(|options| options.logit_bias = BTreeMap::from([(3, -101.0)])).is_err());
        with(|options| options.logit_bias = BTreeMap::from([(3, -100.0)])).unwrap();
        let greedy = config(json!({"temperature": 0.0})).options();
        greedy.validate().unwrap();
        assert!(serde_json::from_value::<GenerationConfig>(json!({"top_k": "all"})).is_err());
    }
}
