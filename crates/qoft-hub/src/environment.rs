//! What the environment says about the Hub, in the variables of Python's `huggingface_hub`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::HubError;

/// Where the Hub is where nothing says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// How long the Hub may be silent where nothing says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// The Hub, and the cache of what came from it.
///
/// | variable | meaning |
/// |---|---|
/// | `HF_ENDPOINT` | address of the Hub |
/// | `HF_TOKEN`, `HF_TOKEN_PATH` | token of the user, or its file; else that of `hf auth login` |
/// | `HF_HOME` | folder of the cache and the token: `~/.cache/huggingface` |
/// | `HF_HUB_CACHE` | folder of the cache alone: `hub` in `HF_HOME` |
/// | `HF_HUB_OFFLINE` | `1`: nothing is fetched |
/// | `HF_HUB_DOWNLOAD_TIMEOUT` | seconds without an answer after which it is asked once more: 30 |
#[derive(Debug)]
pub struct Hub {
    pub(crate) endpoint: String,
    pub(crate) cache: PathBuf,
    pub(crate) token: Option<String>,
    pub(crate) offline: Option<&'static str>,
    pub(crate) patience: Duration,
}

impl Hub {
    /// The Hub at an address, with a folder for what comes from it.
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>, token: Option<&str>) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: cache.into(),
            token: token.map(str::to_owned),
            offline: None,
            patience: PATIENCE,
        }
    }

    /// As the environment has it.
    ///
    /// # Errors
    /// If no folder for the cache is named, and the user has none; or if the address is none.
    pub fn from_env() -> Result<Self, HubError> {
        let cache = cache().ok_or_else(|| {
            let message = "no folder for what comes from the Hub: set HF_HOME";
            HubError::Environment(message.into())
        })?;
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(HubError::Environment(format!(
                "HF_ENDPOINT={endpoint}: expected an address such as {ENDPOINT}"
            )));
        }
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
        let offline = offline.into_iter().find(|name| {
            let value = set(name).unwrap_or_default().to_ascii_lowercase();
            matches!(value.as_str(), "1" | "on" | "yes" | "true")
        });
        let patience = match set("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => PATIENCE,
            Some(text) => {
                let seconds = text.trim().parse::<f64>().ok();
                let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let time = time.filter(|time| !time.is_zero());
                time.ok_or_else(|| {
                    let message =
                        format!("HF_HUB_DOWNLOAD_TIMEOUT={text}: expected seconds, such as 30");
                    HubError::Environment(message)
                })?
            }
        };
        Ok(Self {
            offline,
            patience,
            ..Self::new(&endpoint, cache, token().as_deref())
        })
    }

    /// The same, with another time that the Hub may be silent.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The folder of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn home() -> Option<PathBuf> {
    if let Some(home) = set("HF_HOME") {
        return Some(home.into());
    }
    let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(env::home_dir()?.join(".cache")));
    Some(cache?.join("huggingface"))
}

fn cache() -> Option<PathBuf> {
    let named = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE"));
    named
        .map(PathBuf::from)
        .or_else(|| Some(home()?.join("hub")))
}

fn token() -> Option<String> {
    let of_file = || {
        let path = set("HF_TOKEN_PATH").map(PathBuf::from);
        let path = path.or_else(|| Some(home()?.join("token")))?;
        fs::read_to_string(path).ok()
    };
    let token = set("HF_TOKEN").or_else(of_file)?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}
