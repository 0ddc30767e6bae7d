//! How likely tokens are, as OpenAI tells it.

use qoft_train::Logprobs;
use qoft_train::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// The text of one token, special ones included.
pub fn text(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.decode(&[id], false).unwrap_or_default()
}

/// One token of a chat's answer.
pub fn of_chat(tokenizer: &Tokenizer, id: u32, logprobs: &Logprobs) -> Value {
    let one = |id: u32, logprob: f32| {
        let token = text(tokenizer, id);
        json!({"bytes": token.as_bytes(), "logprob": finite(logprob), "token": token})
    };
    let top = logprobs.top.iter().map(|(id, logprob)| one(*id, *logprob));
    let mut own = one(id, logprobs.own);
    own["top_logprobs"] = top.collect();
    own
}

/// What a completion tells of its tokens.
#[derive(Debug, Clone, Default)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    own: Vec<Value>,
    top: Vec<Value>,
    offsets: Vec<usize>,
}

impl CompletionLogprobs {
    /// Adds a token, before which the text has so many characters.
    pub fn add(&mut self, tokenizer: &Tokenizer, id: u32, logprobs: &Logprobs, offset: usize) {
        let top = logprobs.top.iter();
        let top = top.map(|(id, logprob)| (text(tokenizer, *id), finite(*logprob)));
        self.tokens.push(text(tokenizer, id));
        self.own.push(finite(logprobs.own));
        self.top.push(Value::Object(top.collect::<Map<_, _>>()));
        self.offsets.push(offset);
    }

    /// As OpenAI tells it.
    pub fn to_json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.own,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        })
    }
}

/// JSON has no infinity; OpenAI writes -9999 for it.
fn finite(logprob: f32) -> Value {
    json!(logprob.max(-9999.0))
}
