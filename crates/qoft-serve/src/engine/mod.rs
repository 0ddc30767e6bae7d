//! The one thread that computes: it writes all texts together.

mod attached;
mod queue;
mod stop;
mod task;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use qoft_core::AdapterChoice;
use qoft_models::CausalLm;
use qoft_train::tokenizer::Tokenizer;
use qoft_train::{End, GenerateError, SequenceKey, WriteRequest, Writer, Written};

use crate::error::{ApiError, ServeError};
use crate::metrics::Metrics;
use crate::options::ServeOptions;

pub use attached::{Attached, NamedAdapter};
pub use queue::Queue;
pub use stop::StopStrings;
pub use task::{Event, Task, What};

/// How long the thread sleeps at most while there is nothing to do.
const NAP: Duration = Duration::from_millis(50);

/// Writes the texts of all requests together.
pub struct Engine<'t> {
    model: CausalLm,
    attached: Attached,
    tokenizer: &'t Tokenizer,
    device: Device,
    writer: Writer<'t, CausalLm>,
    running: BTreeMap<SequenceKey, Running>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    batch_size: usize,
}

/// A text on its way.
struct Running {
    task: Task,
    choice: AdapterChoice,
    stops: StopStrings,
    /// When its last token came.
    last: Instant,
    tokens: usize,
}

impl<'t> Engine<'t> {
    /// An engine for a model on `device`, which gets the adapters.
    ///
    /// # Errors
    /// If an adapter does not fit the model.
    pub fn new(
        model: &CausalLm,
        adapters: Vec<NamedAdapter>,
        tokenizer: &'t Tokenizer,
        device: &Device,
        options: &ServeOptions,
        (queue, metrics): (Arc<Queue>, Arc<Metrics>),
    ) -> Result<Self, ServeError> {
        let mut model = model.valid();
        let attached = Attached::new(&mut model, adapters, device)?;
        Ok(Self {
            model,
            attached,
            tokenizer,
            device: device.clone(),
            writer: Writer::new(tokenizer, device),
            running: BTreeMap::new(),
            queue,
            metrics,
            batch_size: options.max_batch_size.get(),
        })
    }

    /// Writes until it is asked to stop; what is written then may still take as long as `patience`.
    pub fn run(&mut self, stop: &AtomicBool, patience: Duration) {
        let mut stopping: Option<Instant> = None;
        loop {
            if stop.load(Ordering::SeqCst) {
                let since = *stopping.get_or_insert_with(Instant::now);
                self.queue.close();
                while let Some(task) = self.queue.take() {
                    task.tell(What::Failed(ApiError::stopping()));
                }
                if since.elapsed() >= patience {
                    self.end_all(&ApiError::stopping());
                }
                if self.running.is_empty() {
                    return;
                }
            }
            self.admit();
            self.sweep();
            match self.running.is_empty() {
                true => self.queue.wait(NAP),
                false => self.step(),
            }
        }
    }

    /// Lets texts begin that wait, as far as there is room.
    fn admit(&mut self) {
        while self.running.len() < self.batch_size
            && let Some(task) = self.queue.take()
        {
            if task.is_abandoned() {
                continue;
            }
            if task.deadline <= Instant::now() {
                task.tell(What::Failed(ApiError::timeout()));
                continue;
            }
            match self.join(&task) {
                Err(error) => task.tell(What::Failed(error)),
                Ok((_, None)) => task.tell(What::End { stopped: false }),
                Ok((choice, Some(key))) => self.begin(key, choice, task),
            }
        }
    }

    /// Adds a text to those that are written.
    fn join(&mut self, task: &Task) -> Result<(AdapterChoice, Option<SequenceKey>), ApiError> {
        let used: Vec<&AdapterChoice> = self.running.values().map(|text| &text.choice).collect();
        let choice = self.attached.choose(&mut self.model, &task.wanted, &used)?;
        let mut request = WriteRequest::new(task.prompt.clone(), task.options.clone())
            .with_adapters(choice.clone());
        if let Some(top) = task.top_logprobs {
            request = request.with_logprobs(top);
        }
        let key = self.writer.join(&self.model, request);
        Ok((choice, key.map_err(|error| refused(&error))?))
    }

    fn begin(&mut self, key: SequenceKey, choice: AdapterChoice, task: Task) {
        self.metrics
            .begins(task.prompt.len(), task.arrived.elapsed());
        let text = Running {
            stops: StopStrings::new(task.stops.clone()),
            choice,
            last: task.arrived,
            tokens: 0,
            task,
        };
        self.running.insert(key, text);
        self.metrics.running(self.running.len());
    }

    /// Lets texts go for which nobody waits, or no longer.
    fn sweep(&mut self) {
        let now = Instant::now();
        let over = self
            .running
            .iter()
            .filter(|(_, text)| text.task.is_abandoned() || text.task.deadline <= now);
        let over: Vec<SequenceKey> = over.map(|(key, _)| *key).collect();
        for key in over {
            self.writer.leave(key);
            if let Some(text) = self.running.remove(&key) {
                match text.task.is_abandoned() {
                    true => self.metrics.abandoned(),
                    false => text.task.tell(What::Failed(ApiError::timeout())),
                }
            }
        }
        self.metrics.running(self.running.len());
    }

    fn step(&mut self) {
        let (writer, running, metrics) = (&mut self.writer, &mut self.running, &*self.metrics);
        let mut over = Vec::new();
        let model = &self.model;
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            writer.step(model, &mut |key, written| {
                if let Some(text) = running.get_mut(&key)
                    && text.hears(written, metrics)
                {
                    over.push(key);
                }
            });
        }));
        metrics.stepped();
        for key in over {
            self.writer.leave(key);
            self.running.remove(&key);
        }
        if stepped.is_err() {
            // What was half done is dropped with all caches.
            self.writer = Writer::new(self.tokenizer, &self.device);
            self.end_all(&ApiError::internal("the model failed on these texts"));
        }
        self.metrics.running(self.running.len());
    }

    fn end_all(&mut self, error: &ApiError) {
        for (key, text) in std::mem::take(&mut self.running) {
            self.writer.leave(key);
            text.task.tell(What::Failed(error.clone()));
        }
    }
}

impl Running {
    /// Hands on what was written; whether the text is over.
    fn hears(&mut self, written: Result<Written, GenerateError>, metrics: &Metrics) -> bool {
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                self.task
                    .tell(What::Failed(ApiError::internal(error.to_string())));
                return true;
            }
        };
        metrics.token(self.tokens == 0, self.last.elapsed());
        (self.tokens, self.last) = (self.tokens + 1, Instant::now());
        let (mut text, stopped) = self.stops.push(&written.text);
        if written.end.is_some() && !stopped {
            text += &self.stops.finish();
        }
        self.task.tell(What::Token {
            text,
            id: written.id,
            logprobs: written.logprobs,
        });
        let stopped = stopped || matches!(written.end, Some(End::Token | End::String));
        let over = stopped || written.end.is_some();
        if over {
            self.task.tell(What::End { stopped });
        }
        over
    }
}

/// What a request is told that cannot be written.
fn refused(error: &GenerateError) -> ApiError {
    match error {
        GenerateError::PromptTooLong { .. } => ApiError {
            code: Some("context_length_exceeded"),
            ..ApiError::bad(error.to_string())
        },
        GenerateError::Tokenizer(_) => ApiError::internal(error.to_string()),
        _ => ApiError::bad(error.to_string()),
    }
}
