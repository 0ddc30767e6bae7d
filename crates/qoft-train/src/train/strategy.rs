//! How a run is told when to do something.

use serde::{Deserialize, Serialize};

/// When something is done again and again during a run, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Strategy {
    /// Never.
    No,
    /// Each so many steps.
    Steps,
    /// After each epoch.
    Epoch,
}
