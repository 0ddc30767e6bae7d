//! What is read from the Hub: answers about files, and their bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use hf_hub::Repo;
use hf_hub::api::RepoInfo;
use thiserror::Error;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::Hub;

/// Redirects within the Hub itself that are followed to learn about a file.
const MOST_HOPS: usize = 5;

/// Why something could not be read.
#[derive(Debug, Error)]
pub enum Failure {
    /// The answer is an error, or there is none.
    #[error("{0}")]
    Request(Box<ureq::Error>),
    /// Nothing came for so long.
    #[error("nothing came for {} seconds", .0.as_secs_f64())]
    Silence(Duration),
    /// The connection ended before the file did, or the file cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The answer lacks something.
    #[error("the answer has no usable `{0}`")]
    Header(&'static str),
    /// Somebody else fetches the same file.
    #[error("another program holds {}", .0.display())]
    Locked(PathBuf),
}

impl Failure {
    /// The status of an answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Request(error) => match **error {
                ureq::Error::StatusCode(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it may go better the next time.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Silence(_) | Self::Io(_) | Self::Locked(_) => true,
            Self::Request(_) => self
                .status()
                .is_none_or(|status| status == 429 || status >= 500),
            Self::Header(_) => false,
        }
    }
}

/// A file of the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What the file is called in the cache: a digest of its bytes.
    pub etag: String,
    /// The commit that it is in.
    pub commit: String,
    /// Its bytes.
    pub size: u64,
}

/// What asks the Hub.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    patience: Duration,
}

impl Client {
    /// For a user of the Hub.
    pub fn new(hub: &Hub) -> Self {
        let agent = Agent::config_builder()
            .user_agent(concat!("qoft/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(hub.patience))
            .timeout_send_request(Some(hub.patience))
            .timeout_recv_response(Some(hub.patience))
            // A request lasts no longer. What of a file is not here by then is asked for anew, so that a
            // connection that fell silent is left, and a slow one is not.
            .timeout_recv_body(Some(hub.patience))
            .build()
            .new_agent();
        Self {
            agent,
            endpoint: hub.endpoint.clone(),
            token: hub.token.clone(),
            patience: hub.patience,
        }
    }

    /// The commit and the files of a repository.
    pub fn info(&self, repo: &Repo) -> Result<RepoInfo, Failure> {
        let url = format!("{}/api/{}", self.endpoint, repo.api_url());
        let mut answer = self.get(&url, None, true)?;
        answer.body_mut().read_json().map_err(|e| self.failed(e))
    }

    /// Where a file is.
    pub fn url(&self, repo: &Repo, file: &str) -> String {
        let revision = repo.url_revision();
        format!("{}/{}/resolve/{revision}/{file}", self.endpoint, repo.url())
    }

    /// What the Hub says of a file. Large ones lie in a store, which knows their sizes.
    pub fn about(&self, url: &str) -> Result<About, Failure> {
        let first = Some("bytes=0-0".to_owned());
        let mut url = url.to_owned();
        let mut answer = self.get(&url, first.clone(), false)?;
        for _ in 0..MOST_HOPS {
            match redirect(&answer) {
                Some(place) if place.starts_with('/') => {
                    url = self.endpoint.clone() + place;
                    answer = self.get(&url, first.clone(), false)?;
                }
                _ => break,
            }
        }
        let headers = answer.headers();
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
        let etag = etag.ok_or(Failure::Header("etag"))?;
        let etag = etag.trim_start_matches("W/").replace('"', "");
        let is_name = |text: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !text.is_empty() && !text.starts_with('.') && text.bytes().all(is_plain)
        };
        if !is_name(&etag) {
            return Err(Failure::Header("etag"));
        }
        let commit = text(headers, "x-repo-commit").filter(|commit| is_name(commit));
        let commit = commit.ok_or(Failure::Header("x-repo-commit"))?.to_owned();
        let stored = match redirect(&answer) {
            Some(store) => Some(self.get(store, first, true)?),
            None => None,
        };
        let headers = stored.as_ref().unwrap_or(&answer).headers();
        let range = text(headers, "content-range").and_then(|range| range.rsplit('/').next());
        let size = range.and_then(|size| size.parse().ok());
        Ok(About {
            etag,
            commit,
            size: size.ok_or(Failure::Header("content-range"))?,
        })
    }

    /// Appends to `file`, which has the first `here` bytes, what follows. Of what came before a failure
    /// `on_bytes` has heard.
    pub fn append(
        &self,
        url: &str,
        here: u64,
        file: &mut File,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let mut answer = self.get(url, Some(format!("bytes={here}-")), true)?;
        if here > 0 && answer.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Failure::Header("content-range"));
        }
        let mut reader = answer.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = reader
                .read(&mut buffer)
                .map_err(|e| self.failed(e.into()))?;
            if count == 0 {
                return Ok(());
            }
            file.write_all(&buffer[..count])?;
            on_bytes(count as u64);
        }
    }

    fn get(
        &self,
        url: &str,
        range: Option<String>,
        follow: bool,
    ) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token
            && url.starts_with(&self.endpoint)
        {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        if !follow {
            let config = request.config().max_redirects(0);
            request = config.max_redirects_will_error(false).build();
        }
        request.call().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: ureq::Error) -> Failure {
        match error {
            ureq::Error::Timeout(_) => Failure::Silence(self.patience),
            ureq::Error::Io(error) => Failure::Io(error),
            error => Failure::Request(Box::new(error)),
        }
    }
}

/// Where an answer sends to.
fn redirect(answer: &Response<Body>) -> Option<&str> {
    let is_redirect = answer.status().is_redirection();
    text(answer.headers(), "location").filter(|_| is_redirect)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
