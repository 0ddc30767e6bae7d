//! What answers of both kinds have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::{App, now};

/// A kind of answers, by the words that OpenAI has for it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// What ids begin with.
    pub prefix: &'static str,
    /// Whole answers.
    pub whole: &'static str,
    /// Parts of streams.
    pub chunk: &'static str,
}

/// What an answer has beside its texts.
pub struct Shape {
    pub app: Arc<App>,
    /// The tokens so far.
    pub usage: Usage,
    kind: Kind,
    id: String,
    number: u64,
    created: u64,
    model: String,
    /// Whether a stream ends with the usage.
    with_usage: bool,
}

impl Shape {
    /// A new one, for so many tokens of prompts.
    pub fn new(
        app: Arc<App>,
        kind: Kind,
        model: String,
        prompt: usize,
        options: Option<StreamOptions>,
    ) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("{}-{:x}{number:08x}", kind.prefix, app.created),
            kind,
            number,
            created: now(),
            model,
            usage: Usage {
                prompt,
                completion: 0,
            },
            with_usage: options.and_then(|options| options.include_usage) == Some(true),
            app,
        }
    }

    /// The number of the request.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// All of an answer.
    pub fn whole(&self, choices: Vec<Value>) -> Value {
        let mut whole = self.object(self.kind.whole, choices);
        whole["usage"] = self.usage.to_json();
        whole
    }

    /// A part of a stream.
    pub fn chunk(&self, choices: Vec<Value>) -> Value {
        let mut chunk = self.object(self.kind.chunk, choices);
        if self.with_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// What a stream has behind its texts.
    pub fn last(&self) -> Vec<Value> {
        let mut last = self.chunk(Vec::new());
        last["usage"] = self.usage.to_json();
        match self.with_usage {
            true => vec![last],
            false => Vec::new(),
        }
    }

    fn object(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}

/// What a stream has beside its texts.
#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// The tokens of prompts and answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub prompt: usize,
    pub completion: usize,
}

impl Usage {
    /// As OpenAI tells it.
    pub fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        })
    }
}

/// Why a text ended, as OpenAI says it.
pub fn finish_reason(stopped: bool) -> &'static str {
    match stopped {
        true => "stop",
        false => "length",
    }
}
