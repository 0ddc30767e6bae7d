//! To the Hub: a folder becomes one commit of a repository.

mod client;
mod local;

use std::path::Path;

use serde_json::{Value, json};

use crate::{Hub, HubError, HubName, Transfer};
use client::{Client, JSON_LINES, LFS};
use local::LocalFile;

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Address of the commit, or of the repository if the Hub does not say.
    pub url: String,
    /// Files of the commit.
    pub files: usize,
}

impl Hub {
    /// Makes one commit of the files of a folder, in a model's repository that is created if it is not there.
    /// Files of the repository that the folder does not have stay. Checkpoints of a training, hidden files
    /// and links are left out; [`Transfer::note`] says which.
    ///
    /// The steps are those of `huggingface_hub`: `api/repos/create`, `preupload`, which says what goes to the
    /// store for large files, its `objects/batch`, and `commit`.
    ///
    /// # Errors
    /// If the user may not write there or has no token, if a file cannot be read, or if the Hub answers with
    /// an error. Nothing of the repository changes unless all files have arrived.
    pub fn push(
        &self,
        folder: &Path,
        name: &HubName,
        private: bool,
        message: &str,
        transfer: &mut dyn Transfer,
    ) -> Result<Pushed, HubError> {
        if let Some(variable) = self.offline {
            return Err(HubError::Environment(format!(
                "{name}: nothing is pushed while {variable} is set"
            )));
        }
        if self.token.is_none() {
            return Err(HubError::Environment(format!(
                "{name}: to push, set HF_TOKEN to a token that may write; {}/settings/tokens makes one",
                self.endpoint
            )));
        }
        let files = local::files(folder, transfer)?;
        let client = Client::new(self, name);
        client.create(private)?;
        let mut lines = vec![json!({"key": "header", "value": {"summary": message}})];
        let modes = client.modes(&files)?;
        let is_large = |file: &&LocalFile| {
            modes
                .iter()
                .any(|(path, large)| *path == file.path && *large)
        };
        let large: Vec<&LocalFile> = files.iter().filter(is_large).collect();
        for file in files.iter().filter(|file| !is_large(file)) {
            transfer.file(&file.path, file.size);
            lines.push(json!({"key": "file", "value": {
                "path": file.path, "content": file.base64()?, "encoding": "base64",
            }}));
            transfer.bytes(file.size);
        }
        for (file, oid) in client.store(&large, transfer)? {
            lines.push(json!({"key": "lfsFile", "value": {
                "path": file.path, "algo": "sha256", "oid": oid, "size": file.size,
            }}));
        }
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        let (url, doing) = (client.api("commit"), "making the commit");
        let answer = client.post(&url, JSON_LINES, &lines.join("\n"), doing)?;
        let url = answer.get("commitUrl").and_then(Value::as_str);
        Ok(Pushed {
            url: url.map_or_else(|| format!("{}/{}", self.endpoint, name.repo), str::to_owned),
            files: files.len(),
        })
    }
}

impl Client<'_> {
    /// Makes the repository unless it is there.
    fn create(&self, private: bool) -> Result<(), HubError> {
        let (owner, name) = self.name.repo.split_once('/').unwrap_or_default();
        let body =
            json!({"name": name, "organization": owner, "type": "model", "private": private});
        let url = format!("{}/api/repos/create", self.hub.endpoint);
        match self.send(&url, "application/json", &body.to_string()) {
            Ok(_) => Ok(()),
            // It exists; whoever may write to it and create none gets 403.
            Err(ureq::Error::StatusCode(409 | 403)) => Ok(()),
            Err(error @ ureq::Error::StatusCode(_)) => {
                Err(self.failed("creating the repository", &error))
            }
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    /// Which files go to the store for large ones.
    fn modes(&self, files: &[LocalFile]) -> Result<Vec<(String, bool)>, HubError> {
        let mut entries = Vec::new();
        for file in files {
            let sample = file.sample()?;
            entries.push(json!({"path": file.path, "size": file.size, "sample": sample}));
        }
        let body = json!({"files": entries}).to_string();
        let (url, doing) = (self.api("preupload"), "asking how files are to be sent");
        let answer = self.post(&url, "application/json", &body, doing)?;
        let files = answer.get("files").and_then(Value::as_array);
        let files = files.map(Vec::as_slice).unwrap_or_default().iter();
        let mode = |file: &Value| {
            let path = file.get("path")?.as_str()?.to_owned();
            Some((path, file.get("uploadMode")?.as_str()? == "lfs"))
        };
        Ok(files.filter_map(mode).collect())
    }

    /// Sends what the store does not have; each file with its SHA-256.
    fn store<'f>(
        &self,
        files: &[&'f LocalFile],
        transfer: &mut dyn Transfer,
    ) -> Result<Vec<(&'f LocalFile, String)>, HubError> {
        let mut known = Vec::new();
        for file in files {
            known.push((*file, file.sha256()?));
        }
        if known.is_empty() {
            return Ok(known);
        }
        let objects = known
            .iter()
            .map(|(file, oid)| json!({"oid": oid, "size": file.size}));
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
            "objects": objects.collect::<Vec<_>>(), "ref": {"name": self.name.revision()},
        });
        let url = format!(
            "{}/{}.git/info/lfs/objects/batch",
            self.hub.endpoint, self.name.repo
        );
        let answer = self.post(&url, LFS, &body.to_string(), "asking where large files go")?;
        let objects = answer.get("objects").and_then(Value::as_array);
        for object in objects.map(Vec::as_slice).unwrap_or_default() {
            let oid = object
                .get("oid")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let Some((file, oid)) = known.iter().find(|(_, known)| known == oid) else {
                continue;
            };
            if let Some(error) = object.pointer("/error/message").and_then(Value::as_str) {
                return Err(self.reason(&format!("sending {}", file.path), error));
            }
            // Without an action the store has the file.
            if let Some(actions) = object.get("actions") {
                self.upload(file, oid, actions, transfer)?;
            }
        }
        Ok(known)
    }

    /// Sends one file as the store says: whole, or in parts whose addresses are numbered.
    fn upload(
        &self,
        file: &LocalFile,
        oid: &str,
        actions: &Value,
        transfer: &mut dyn Transfer,
    ) -> Result<(), HubError> {
        let doing = format!("sending {}", file.path);
        let Some(href) = actions.pointer("/upload/href").and_then(Value::as_str) else {
            return Ok(());
        };
        let header = actions.pointer("/upload/header").and_then(Value::as_object);
        let size = header.and_then(|header| {
            let size = header.get("chunk_size")?;
            size.as_u64().or_else(|| size.as_str()?.parse().ok())
        });
        transfer.file(&file.path, file.size);
        match (header, size) {
            (Some(header), Some(size)) if size > 0 => {
                let count = file.size.div_ceil(size).max(1);
                let mut parts = Vec::new();
                for number in 1..=count {
                    let address = header.iter().find(|(key, _)| key.parse() == Ok(number));
                    let address = address.and_then(|(_, address)| address.as_str());
                    let address = address.ok_or_else(|| {
                        self.reason(&doing, &format!("no address for part {number} of {count}"))
                    })?;
                    let from = (number - 1) * size;
                    let part = from..file.size.min(from + size);
                    let tag = self.put(address, &[], file, part, transfer)?;
                    parts.push(json!({"partNumber": number, "etag": tag}));
                }
                let body = json!({"oid": oid, "parts": parts}).to_string();
                self.post(href, LFS, &body, &doing)?;
            }
            _ => {
                let header = header.into_iter().flatten();
                let header: Vec<(&str, &str)> = header
                    .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
                    .collect();
                self.put(href, &header, file, 0..file.size, transfer)?;
            }
        }
        if let Some(verify) = actions.pointer("/verify/href").and_then(Value::as_str) {
            let body = json!({"oid": oid, "size": file.size}).to_string();
            self.post(verify, LFS, &body, &doing)?;
        }
        Ok(())
    }
}
