//! The fields of requests about how tokens are chosen.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use qoft_train::{GenerateError, GenerateOptions, GenerationConfig};
use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;

/// Strings that end a text, at most.
const MOST_STOPS: usize = 16;
/// Likeliest tokens that a request can ask for, at most.
pub const MOST_LOGPROBS: usize = 20;

/// The fields that both kinds of requests have. Those of OpenAI, and of vLLM's `top_k`, `min_p`,
/// `repetition_penalty` and `ignore_eos`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ChoosingFields {
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<Value>,
    seed: Option<i64>,
    n: Option<usize>,
    best_of: Option<usize>,
    stop: Option<Stops>,
    ignore_eos: Option<bool>,
    pub max_tokens: Option<usize>,
    pub max_completion_tokens: Option<usize>,
}

/// A string, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum Stops {
    One(String),
    Several(Vec<String>),
}

/// How tokens are chosen.
#[derive(Debug, Clone)]
pub struct Choosing {
    pub options: GenerateOptions,
    /// Strings before which a text ends.
    pub stops: Vec<String>,
    /// Texts for each prompt.
    pub n: usize,
    /// For how many of the likeliest tokens it is told how likely they are.
    pub top_logprobs: Option<usize>,
}

impl ChoosingFields {
    /// What is asked for, with what the model's files say where nothing is. Where both say nothing, texts have
    /// `max_tokens` at most.
    ///
    /// # Errors
    /// For a value that is impossible, or that would change the text and is not implemented.
    pub fn choosing(
        self,
        file: &GenerationConfig,
        max_tokens: usize,
    ) -> Result<Choosing, ApiError> {
        let n = self.n.unwrap_or(1);
        if n == 0 {
            return Err(ApiError::field("n", "is 1 at least"));
        }
        if self.best_of.is_some_and(|best_of| best_of != n) {
            return Err(ApiError::field("best_of", "is not possible here; `n` is"));
        }
        let stops = match self.stop {
            None => Vec::new(),
            Some(Stops::One(stop)) => vec![stop],
            Some(Stops::Several(stops)) => stops,
        };
        let stops: Vec<String> = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        if stops.len() > MOST_STOPS {
            let message = format!("at most {MOST_STOPS} strings");
            return Err(ApiError::field("stop", message));
        }
        let mut own = GenerationConfig::default();
        // Servers of this kind draw unless they are told otherwise.
        let silent = self.temperature.is_none() && file.do_sample.is_none();
        own.do_sample = match self.temperature {
            Some(temperature) => Some(temperature != 0.0),
            None => silent.then_some(true),
        };
        own.temperature = self.temperature;
        own.top_p = self.top_p;
        own.min_p = self.min_p;
        own.repetition_penalty = self.repetition_penalty;
        // -1 is vLLM's word for all; what is not said is no limit, as OpenAI has none.
        own.top_k = match self.top_k {
            Some(top_k) => Some(usize::try_from(top_k).unwrap_or(0)),
            None => file.top_k.is_none().then_some(0),
        };
        let asked = self.max_completion_tokens.or(self.max_tokens);
        own.max_new_tokens = asked.or(file.max_new_tokens).or(Some(max_tokens));
        let mut options = own.or(file.clone()).options();
        // Files say nothing of these: transformers has them not.
        options.presence_penalty = self.presence_penalty.unwrap_or(0.0);
        options.frequency_penalty = self.frequency_penalty.unwrap_or(0.0);
        options.logit_bias = biases(self.logit_bias.as_ref())?;
        options.seed = match self.seed {
            Some(seed) => seed as u64,
            None => RandomState::new().hash_one(0),
        };
        if self.ignore_eos == Some(true) {
            options.eos_token_id = Some(Vec::new());
        }
        if asked == Some(0) {
            return Err(ApiError::field("max_tokens", "is 1 at least"));
        }
        options.validate().map_err(|error| match error {
            GenerateError::Option { key, reason } => ApiError::field(key, reason),
            error => ApiError::bad(error.to_string()),
        })?;
        Ok(Choosing {
            options,
            stops,
            n,
            top_logprobs: None,
        })
    }
}

/// What is added to the logits of tokens: numbers under the tokens' ids, which are texts in JSON.
fn biases(field: Option<&Value>) -> Result<BTreeMap<u32, f64>, ApiError> {
    let wrong = |message: String| ApiError::field("logit_bias", message);
    let fields = match field {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(wrong("is an object with numbers under token ids".into())),
    };
    let of = |(id, bias): (&String, &Value)| {
        let token = id.parse::<u32>();
        let token = token.map_err(|_| wrong(format!("{id:?} is no token id")))?;
        let bias = bias.as_f64();
        Ok((
            token,
            bias.ok_or_else(|| wrong(format!("of {id} is no number")))?,
        ))
    };
    fields.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn choosing(fields: Value, file: Value) -> Result<Choosing, ApiError> {
        let fields: ChoosingFields = serde_json::from_value(fields).unwrap();
        let file: GenerationConfig = serde_json::from_value(file).unwrap();
        fields.choosing(&file, 99)
    }

    #[test]
    fn what_is_asked_for_stands_above_the_file() {
        let plain = choosing(json!({"seed": 7}), json!({})).unwrap();
        assert!(plain.options.do_sample);
        let options = &plain.options;
        assert_eq!((options.temperature, options.top_k), (1.0, 0));
        assert_eq!((options.max_new_tokens, options.seed), (99, 7));
        let file = json!({"do_sample": false, "top_k": 20, "max_new_tokens": 5});
        let own = choosing(json!({"max_tokens": 3, "stop": "x", "n": 2}), file.clone()).unwrap();
        assert!(!own.options.do_sample);
        assert_eq!((own.options.max_new_tokens, own.n), (3, 2));
        assert_eq!(own.stops, ["x"]);
        let drawn = choosing(json!({"temperature": 0.5, "top_k": -1}), file).unwrap();
        assert!(drawn.options.do_sample);
        let options = &drawn.options;
        assert_eq!((options.temperature, options.top_k), (0.5, 0));
        assert_eq!(options.max_new_tokens, 5);
        let greedy = choosing(json!({"temperature": 0}), json!({})).unwrap();
        assert!(!greedy.options.do_sample);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (fields, param) in [
            (json!({"presence_penalty": 2.5}), "presence_penalty"),
            (json!({"frequency_penalty": -3}), "frequency_penalty"),
            (json!({"logit_bias": {"5": 101}}), "logit_bias"),
            (json!({"logit_bias": {"five": 1}}), "logit_bias"),
            (json!({"logit_bias": {"5": "1"}}), "logit_bias"),
            (json!({"logit_bias": [5]}), "logit_bias"),
            (json!({"top_p": 3}), "top_p"),
            (json!({"n": 0}), "n"),
            (json!({"best_of": 3}), "best_of"),
            (json!({"max_tokens": 0}), "max_tokens"),
        ] {
            let error = choosing(fields, json!({})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
        }
        let neutral = json!({"presence_penalty": 0, "logit_bias": {}, "stop": null, "n": 1});
        choosing(neutral, json!({})).unwrap();
        let fields =
            json!({"presence_penalty": 1, "frequency_penalty": -0.5, "logit_bias": {"5": -100}});
        let options = choosing(fields, json!({})).unwrap().options;
        assert_eq!(
            (options.presence_penalty, options.frequency_penalty),
            (1.0, -0.5)
        );
        assert_eq!(options.logit_bias, BTreeMap::from([(5, -100.0)]));
    }
}
