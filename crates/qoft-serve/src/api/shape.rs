//! What answers of both kinds have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::app::{App, now};

/// The head of an answer.
#[derive(Clone)]
pub struct Shape {
    pub app: Arc<App>,
    id: String,
    number: u64,
    created: u64,
    model: String,
}

impl Shape {
    /// A new one; `prefix` is that of its id.
    pub fn new(app: Arc<App>, prefix: &str, model: String) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("{prefix}-{:x}{number:08x}", app.created),
            number,
            created: now(),
            model,
            app,
        }
    }

    /// The number of the request.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// An object of this kind.
    pub fn object(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
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
