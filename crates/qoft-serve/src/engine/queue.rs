//! What waits to be written.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::task::Task;
use crate::error::ApiError;

/// Tasks that wait for their turn, first come, first served.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    tasks: VecDeque<Task>,
    is_closed: bool,
}

impl Queue {
    /// A queue of so many tasks at most.
    pub fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Condvar::new(),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds all tasks of a request, or none of them. `idle` is how many could begin at once.
    pub fn add(&self, tasks: Vec<Task>, idle: usize) -> Result<(), ApiError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(ApiError::stopping());
        }
        if state.tasks.len() + tasks.len() > self.limit + idle {
            state.tasks.retain(|task| !task.is_abandoned());
        }
        if state.tasks.len() + tasks.len() > self.limit + idle {
            return Err(ApiError::busy());
        }
        state.tasks.extend(tasks);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next task.
    pub fn take(&self) -> Option<Task> {
        self.lock().tasks.pop_front()
    }

    /// Waits a while for a task, unless there is one.
    pub fn wait(&self, longest: Duration) {
        let state = self.lock();
        if state.tasks.is_empty() && !state.is_closed {
            let waited = self.arrived.wait_timeout(state, longest);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Refuses further tasks.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.arrived.notify_all();
    }

    /// How many tasks wait.
    pub fn len(&self) -> usize {
        self.lock().tasks.len()
    }
}
