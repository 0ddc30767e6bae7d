//! What a server counts, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a server counts from its start on.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Answers by path and status.
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    running: AtomicU64,
    started: AtomicU64,
    abandoned: AtomicU64,
    prompt_tokens: AtomicU64,
    tokens: AtomicU64,
    steps: AtomicU64,
    waits: Times,
    first_tokens: Times,
    later_tokens: Times,
}

/// A number of durations and their sum.
#[derive(Debug, Default)]
struct Times {
    count: AtomicU64,
    micros: AtomicU64,
}

impl Times {
    fn add(&self, time: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Metrics {
    /// A request was answered.
    pub fn answered(&self, path: &'static str, status: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((path, status)).or_default() += 1;
    }

    /// A text begins after it has waited.
    pub fn begins(&self, prompt_tokens: usize, waited: Duration) {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.prompt_tokens
            .fetch_add(prompt_tokens as u64, Ordering::Relaxed);
        self.waits.add(waited);
    }

    /// So many texts are being written.
    pub fn running(&self, count: usize) {
        self.running.store(count as u64, Ordering::Relaxed);
    }

    /// How many texts are being written.
    pub fn running_now(&self) -> usize {
        self.running.load(Ordering::Relaxed) as usize
    }

    /// A client has gone before the end.
    pub fn abandoned(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
    }

    /// A token came so long after the one before it, or after the request.
    pub fn token(&self, is_first: bool, after: Duration) {
        self.tokens.fetch_add(1, Ordering::Relaxed);
        match is_first {
            true => self.first_tokens.add(after),
            false => self.later_tokens.add(after),
        }
    }

    /// The model computed once for all texts.
    pub fn stepped(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// All of it in Prometheus' text format; `waiting` texts are in the queue.
    pub fn to_text(&self, waiting: usize) -> String {
        let mut text = String::new();
        let mut add = |kind: &str, name: &str, help: &str, values: &[(&str, f64)]| {
            // Writing into a string does not fail.
            let _ = writeln!(text, "# HELP qoft_{name} {help}\n# TYPE qoft_{name} {kind}");
            for (suffix, value) in values {
                let _ = writeln!(text, "qoft_{name}{suffix} {value}");
            }
        };
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        for (name, help, value) in [
            (
                "running_sequences",
                "Texts that are being written.",
                of(&self.running),
            ),
            (
                "waiting_sequences",
                "Texts that wait for their turn.",
                waiting as f64,
            ),
        ] {
            add("gauge", name, help, &[("", value)]);
        }
        for (name, help, count) in [
            ("sequences_total", "Texts that were begun.", &self.started),
            (
                "abandoned_sequences_total",
                "Texts whose clients went away.",
                &self.abandoned,
            ),
            (
                "prompt_tokens_total",
                "Tokens of prompts.",
                &self.prompt_tokens,
            ),
            (
                "generation_tokens_total",
                "Tokens that were written.",
                &self.tokens,
            ),
            ("steps_total", "Passes through the model.", &self.steps),
        ] {
            add("counter", name, help, &[("", of(count))]);
        }
        for (name, help, times) in [
            ("queue_seconds", "Time in the queue.", &self.waits),
            (
                "time_to_first_token_seconds",
                "From the request to the first token.",
                &self.first_tokens,
            ),
            (
                "time_per_output_token_seconds",
                "From one token to the next.",
                &self.later_tokens,
            ),
        ] {
            let sum = of(&times.micros) / 1e6;
            add(
                "summary",
                name,
                help,
                &[("_sum", sum), ("_count", of(&times.count))],
            );
        }
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<(String, f64)> = answers
            .iter()
            .map(|((path, status), count)| {
                (
                    format!("{{path=\"{path}\",status=\"{status}\"}}"),
                    *count as f64,
                )
            })
            .collect();
        let lines: Vec<(&str, f64)> = lines.iter().map(|(l, v)| (l.as_str(), *v)).collect();
        add(
            "counter",
            "requests_total",
            "Requests that were answered.",
            &lines,
        );
        text
    }
}
