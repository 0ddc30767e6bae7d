//! What is asked of the engine, and what it answers.

use std::time::Instant;

use qoft_train::{GenerateOptions, Logprobs};
use tokio::sync::mpsc::UnboundedSender;

use crate::error::ApiError;
use crate::names::Wanted;

/// One text to write.
#[derive(Debug)]
pub struct Task {
    /// Its place among the texts of the request.
    pub index: usize,
    /// The ids to continue.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub options: GenerateOptions,
    /// Strings before which it ends.
    pub stops: Vec<String>,
    /// If it is to be told how likely tokens are: for how many of the likeliest ones.
    pub top_logprobs: Option<usize>,
    /// The adapters.
    pub wanted: Wanted,
    /// Who waits for it. A closed channel is a client that has gone.
    pub events: UnboundedSender<Event>,
    /// When nobody waits any more.
    pub deadline: Instant,
    /// When it came.
    pub arrived: Instant,
}

impl Task {
    /// Whether nobody waits for it.
    pub fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Tells who waits for it.
    pub fn tell(&self, what: What) {
        // Whether somebody still listens shows in `is_abandoned`.
        let index = self.index;
        let _ = self.events.send(Event { index, what });
    }
}

/// Something that happened to a text.
#[derive(Debug)]
pub struct Event {
    /// Which of the request's texts.
    pub index: usize,
    /// What happened.
    pub what: What,
}

/// What happens to a text.
#[derive(Debug)]
pub enum What {
    /// A token.
    Token {
        /// Text that is certain now; it may be empty.
        text: String,
        /// Its id.
        id: u32,
        /// How likely it was, if that was asked for.
        logprobs: Option<Logprobs>,
    },
    /// It is over.
    End {
        /// Whether it ended by itself, and not for want of room.
        stopped: bool,
    },
    /// It cannot be written.
    Failed(ApiError),
}
