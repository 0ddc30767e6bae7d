//! Requests that write.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;
use ureq::{Agent, SendBody};

use super::local::LocalFile;
use crate::{Hub, HubError, HubName, Transfer};

pub(super) const LFS: &str = "application/vnd.git-lfs+json";
pub(super) const JSON_LINES: &str = "application/x-ndjson";

/// To reach the Hub, and for its answer once all is sent.
const CONNECT: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(600);

/// A user at a repository.
pub(super) struct Client<'a> {
    pub(super) hub: &'a Hub,
    pub(super) name: &'a HubName,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(super) fn new(hub: &'a Hub, name: &'a HubName) -> Self {
        let config = Agent::config_builder()
            .user_agent(concat!("qoft/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER));
        let agent = config.build().into();
        Self { hub, name, agent }
    }

    /// Address of what the Hub does with the revision of a model.
    pub(super) fn api(&self, what: &str) -> String {
        let (endpoint, repo) = (&self.hub.endpoint, &self.name.repo);
        let revision = self.name.revision().replace('/', "%2F");
        format!("{endpoint}/api/models/{repo}/{what}/{revision}")
    }

    /// Sends a body; the answer, `null` if it is no JSON.
    pub(super) fn send(&self, url: &str, kind: &str, body: &str) -> Result<Value, ureq::Error> {
        let mut request = self
            .agent
            .post(url)
            .content_type(kind)
            .header("accept", accept(kind));
        // Addresses of a store are signed, and the token is nobody's but the Hub's.
        if let Some(token) = self.hub.token.as_ref().filter(|_| self.is_hub(url)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = request.send(body)?;
        let text = answer.body_mut().read_to_string()?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    fn is_hub(&self, url: &str) -> bool {
        let rest = url.strip_prefix(self.hub.endpoint.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    }

    pub(super) fn post(
        &self,
        url: &str,
        kind: &str,
        body: &str,
        doing: &str,
    ) -> Result<Value, HubError> {
        let answer = self.send(url, kind, body);
        answer.map_err(|error| self.failed(doing, &error))
    }

    /// Sends a part of a file to a store; the tag of its answer.
    pub(super) fn put(
        &self,
        url: &str,
        header: &[(&str, &str)],
        file: &LocalFile,
        part: Range<u64>,
        transfer: &mut dyn Transfer,
    ) -> Result<String, HubError> {
        let failed = |error| HubError::io(&file.local, error);
        let mut source = File::open(&file.local).map_err(failed)?;
        source.seek(SeekFrom::Start(part.start)).map_err(failed)?;
        let size = part.end - part.start;
        let mut told = Told {
            source: source.take(size),
            transfer,
        };
        let mut request = self
            .agent
            .put(url)
            .header("content-length", size.to_string());
        for (name, value) in header {
            request = request.header(*name, *value);
        }
        let answer = request.send(SendBody::from_reader(&mut told));
        let doing = format!("sending {}", file.path);
        let answer = answer.map_err(|error| self.failed(&doing, &error))?;
        let tag = answer
            .headers()
            .get("etag")
            .and_then(|tag| tag.to_str().ok());
        Ok(tag.unwrap_or_default().to_owned())
    }

    pub(super) fn failed(&self, doing: &str, error: &ureq::Error) -> HubError {
        match error {
            ureq::Error::StatusCode(status @ (401 | 403)) => HubError::Refused {
                name: self.name.repo.clone(),
                status: *status,
                endpoint: self.hub.endpoint.clone(),
                verb: "write",
            },
            _ => self.reason(doing, &error.to_string()),
        }
    }

    /// The error of a first request that nobody answers.
    pub(super) fn unreachable(&self, error: &ureq::Error) -> HubError {
        HubError::Unreachable {
            name: self.name.to_string(),
            endpoint: self.hub.endpoint.clone(),
            reason: match error {
                ureq::Error::Io(error) => error.to_string(),
                error => error.to_string(),
            },
        }
    }

    pub(super) fn reason(&self, doing: &str, reason: &str) -> HubError {
        HubError::Network {
            name: self.name.to_string(),
            doing: doing.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn accept(kind: &str) -> &str {
    match kind {
        LFS => LFS,
        _ => "application/json",
    }
}

/// A reader that tells how far it is.
struct Told<'a> {
    source: io::Take<File>,
    transfer: &'a mut dyn Transfer,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.transfer.bytes(count as u64);
        Ok(count)
    }
}
