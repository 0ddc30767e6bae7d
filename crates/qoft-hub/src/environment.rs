//! What the environment says about the Hub, in the variables of Python's `huggingface_hub`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder};

use crate::HubError;

/// Where the Hub is where nothing says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// The Hub, and the cache of what came from it.
///
/// | variable | meaning |
/// |---|---|
/// | `HF_ENDPOINT` | address of the Hub |
/// | `HF_TOKEN`, `HF_TOKEN_PATH` | token of the user, or its file; else that of `hf auth login` |
/// | `HF_HOME` | folder of the cache and the token: `~/.cache/huggingface` |
/// | `HF_HUB_CACHE` | folder of the cache alone: `hub` in `HF_HOME` |
/// | `HF_HUB_OFFLINE` | `1`: nothing is fetched |
#[derive(Debug)]
pub struct Hub {
    pub(crate) endpoint: String,
    pub(crate) cache: PathBuf,
    pub(crate) token: Option<String>,
    pub(crate) offline: Option<&'static str>,
}

impl Hub {
    /// The Hub at an address, with a folder for what comes from it.
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>, token: Option<&str>) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: cache.into(),
            token: token.map(str::to_owned),
            offline: None,
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
        Ok(Self {
            offline,
            ..Self::new(&endpoint, cache, token().as_deref())
        })
    }

    /// The folder of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    pub(crate) fn api(&self) -> Result<Api, HubError> {
        // A download that breaks off is taken up again by the caller: the client counts from the wrong
        // byte if one breaks off before the first.
        let builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(false)
            .with_retries(0)
            .with_user_agent("qoft", env!("CARGO_PKG_VERSION"));
        let api = builder.build();
        api.map_err(|error| HubError::Environment(error.to_string()))
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
