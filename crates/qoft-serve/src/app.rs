//! What all requests share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use qoft_train::GenerationConfig;
use qoft_train::chat::ChatTemplate;
use qoft_train::tokenizer::{ChatTemplates, Tokenizer};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::choosing::Choosing;
use crate::engine::{Event, Queue, Task};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::names::{Names, Wanted};
use crate::options::ServeOptions;
use crate::tools::ToolForm;

/// How conversations are written.
pub struct Chat {
    /// The template, or why there is none.
    pub template: Result<ChatTemplate, String>,
    /// How calls of tools are written, if that is known.
    pub tool_form: Option<ToolForm>,
}

impl Chat {
    pub fn new(tokenizer: &Tokenizer, templates: &ChatTemplates) -> Self {
        let template = tokenizer.template_of(templates);
        Self {
            template: template.map_err(|error| error.to_string()),
            tool_form: templates.for_tools().and_then(ToolForm::of_template),
        }
    }
}

/// What all requests share.
pub struct App {
    pub options: ServeOptions,
    pub names: Names,
    pub tokenizer: Arc<Tokenizer>,
    /// How conversations are written for the model.
    pub chat: Chat,
    /// The same for adapters that were trained with other templates.
    pub chats: HashMap<String, Chat>,
    /// How the model's files say that tokens are chosen.
    pub generation: GenerationConfig,
    /// Tokens of the longest text that the model is made for.
    pub context_length: usize,
    /// Ids that the model knows.
    pub vocab_size: usize,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
    /// When the server began, in seconds since 1970.
    pub created: u64,
}

impl App {
    /// How conversations are written for what a request wants: as for the last of its adapters that has a
    /// template of its own.
    pub fn chat(&self, wanted: &Wanted) -> &Chat {
        let mut names = wanted.0.iter().rev();
        let own = names.find_map(|(name, _)| self.chats.get(name));
        own.unwrap_or(&self.chat)
    }

    /// Hands texts to the engine: `n` for each prompt, one prompt after another.
    ///
    /// # Errors
    /// If the request cannot be answered, or not now.
    pub fn submit(
        &self,
        model: &str,
        prompts: &[Vec<u32>],
        choosing: &Choosing,
    ) -> Result<UnboundedReceiver<Event>, ApiError> {
        let wanted = self.names.wanted(model)?;
        for prompt in prompts {
            self.check_prompt(prompt)?;
        }
        let knows = |id: &u32| (*id as usize) < self.vocab_size;
        if let Some(id) = choosing.options.logit_bias.keys().find(|id| !knows(id)) {
            let message = format!("token id {id}, but the model knows {} ids", self.vocab_size);
            return Err(ApiError::field("logit_bias", message));
        }
        let texts = prompts.len() * choosing.n;
        let most = self.options.max_queue + self.options.max_batch_size.get();
        if texts > most {
            let message = format!("{texts} texts in one request; this server takes {most}");
            return Err(ApiError::field("n", message));
        }
        let (events, heard) = unbounded_channel();
        let now = Instant::now();
        let copies = prompts
            .iter()
            .flat_map(|prompt| (0..choosing.n).map(move |copy| (prompt, copy)));
        let tasks = copies.enumerate().map(|(index, (prompt, copy))| {
            let mut options = choosing.options.clone();
            options.max_new_tokens = options.max_new_tokens.min(self.options.max_tokens);
            options.seed = options.seed.wrapping_add(copy as u64);
            Task {
                index,
                prompt: prompt.clone(),
                options,
                stops: choosing.stops.clone(),
                top_logprobs: choosing.top_logprobs,
                wanted: wanted.clone(),
                events: events.clone(),
                deadline: now + self.options.timeout,
                arrived: now,
            }
        });
        let batch_size = self.options.max_batch_size.get();
        let idle = batch_size.saturating_sub(self.metrics.running_now());
        self.queue.add(tasks.collect(), idle)?;
        Ok(heard)
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<(), ApiError> {
        if prompt.is_empty() {
            return Err(ApiError::bad("the prompt has no tokens"));
        }
        if prompt.len() >= self.context_length {
            let message = format!(
                "the prompt has {} tokens, but the model is made for at most {}",
                prompt.len(),
                self.context_length
            );
            return Err(ApiError {
                code: Some("context_length_exceeded"),
                ..ApiError::bad(message)
            });
        }
        match prompt.iter().find(|id| **id as usize >= self.vocab_size) {
            None => Ok(()),
            Some(id) => Err(ApiError::field(
                "prompt",
                format!("token id {id}, but the model knows {} ids", self.vocab_size),
            )),
        }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
