//! How a server listens, and what it allows.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

/// How a server listens, and what it allows.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The address to listen at.
    pub host: IpAddr,
    /// The port; 0 takes any that is free.
    pub port: u16,
    /// The name of the model without adapters.
    pub model_name: String,
    /// Who asks needs one of these keys; without any, only this machine can ask.
    pub api_keys: Vec<String>,
    /// Texts that are written together.
    pub max_batch_size: NonZeroUsize,
    /// Texts that may wait for their turn.
    pub max_queue: usize,
    /// Tokens that a text has at most.
    pub max_tokens: usize,
    /// Bytes of a request at most.
    pub max_body_bytes: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// How long a request may take, its time in the queue included.
    pub timeout: Duration,
    /// How long the server waits for what is being written when it is asked to stop.
    pub shutdown_timeout: Duration,
}

impl ServeOptions {
    /// The defaults for a model of this name.
    pub fn new(model_name: impl Into<String>) -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8000,
            model_name: model_name.into(),
            api_keys: Vec::new(),
            max_batch_size: NonZeroUsize::new(32).unwrap_or(NonZeroUsize::MIN),
            max_queue: 256,
            max_tokens: 4096,
            max_body_bytes: 4 << 20,
            max_connections: 1024,
            timeout: Duration::from_secs(600),
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}
