//! Configurations that may be wrong without anybody asking for them.

use crate::error::Result;

/// What a scheme read from a configuration when it was opened, or what is wrong with it. That is no
/// error yet, since the layers may be somebody else's: [`Scheme::parse`](crate::Scheme::parse) asks.
#[derive(Debug, Clone)]
pub struct Deferred<T>(Result<T>);

impl<T> Deferred<T> {
    /// What was read.
    ///
    /// # Errors
    /// What is wrong with it, each time again.
    pub fn get(&self) -> Result<&T> {
        self.0.as_ref().map_err(Clone::clone)
    }
}

impl<T> From<Result<T>> for Deferred<T> {
    fn from(read: Result<T>) -> Self {
        Self(read)
    }
}
