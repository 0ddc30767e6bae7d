//! Options of commands that several processes run together.

use std::num::NonZeroU64;

use clap::Args;
use serde::{Deserialize, Serialize};

/// Options beside other processes.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Several processes")]
pub struct ProcessArgs {
    /// Seconds after which a process that does not answer the others ends all of them
    /// [default: 1800].
    #[arg(long, value_name = "SECONDS")]
    pub ddp_timeout: Option<NonZeroU64>,
}

#[cfg(feature = "mpi")]
impl ProcessArgs {
    /// How long others are waited for, if it is said.
    pub fn timeout(&self) -> Option<std::time::Duration> {
        let seconds = self.ddp_timeout.map(NonZeroU64::get);
        seconds.map(std::time::Duration::from_secs)
    }
}
