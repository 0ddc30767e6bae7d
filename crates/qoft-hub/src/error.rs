//! What goes wrong between here and the Hub.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why something could not be fetched or pushed. Each message says what it was and what can be done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// There is nothing of this name for this user.
    #[error(
        "{name}: the Hub at {endpoint} has no such {kind}, or it is private and HF_TOKEN is not set to a \
         token that may read it"
    )]
    NotFound {
        /// What was asked for.
        name: String,
        /// `model`, `data set`.
        kind: &'static str,
        /// The Hub's address.
        endpoint: String,
    },
    /// The user has to do something first.
    #[error(
        "{name}: the Hub refuses access ({status}): accept the terms at {endpoint}/{name} if there are \
         any, and set HF_TOKEN to a token that may {verb} it"
    )]
    Refused {
        /// What was asked for.
        name: String,
        /// The status of the answer.
        status: u16,
        /// The Hub's address.
        endpoint: String,
        /// `read` or `write`.
        verb: &'static str,
    },
    /// A file that was asked for is not there.
    #[error("{name}: there is no `{path}` in it; it has {has}")]
    NoSuchFile {
        /// The repository.
        name: String,
        /// What was asked for.
        path: String,
        /// Some of what there is.
        has: String,
    },
    /// The files are not such that they can be used.
    #[error("{name}: {reason}")]
    Unusable {
        /// The repository.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Without the network there is only the cache, which is shared with Python's tools.
    #[error(
        "{name}: no such path, it is not in the cache {}, and {why}; where the Hub can be reached, \
         `hf download {name} --local-dir {name}` of the package huggingface_hub fetches it", cache.display()
    )]
    NotCached {
        /// What was asked for.
        name: String,
        /// The cache.
        cache: PathBuf,
        /// Why nothing is fetched.
        why: String,
    },
    /// The Hub could not be reached, or answered with nonsense.
    #[error("{name}: {doing}: {reason}")]
    Network {
        /// What was asked for.
        name: String,
        /// What was being done.
        doing: String,
        /// The cause.
        reason: String,
    },
    /// The Hub does not answer.
    #[error(
        "{name}: the Hub at {endpoint} cannot be reached ({reason}); is there a network? The folder stays as it \
         is, and the same command pushes it later"
    )]
    Unreachable {
        /// What was asked for.
        name: String,
        /// The Hub's address.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// A folder or file here.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What the environment says cannot be used.
    #[error("{0}")]
    Environment(String),
}

impl HubError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        Self::Io { path, source }
    }
}
