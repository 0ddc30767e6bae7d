//! From the Hub into the cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::{Repo, RepoType};
use serde_json::Value;

use crate::choose::{self, INDEX, some};
use crate::client::{Client, Failure};
use crate::download::Download;
use crate::name::is_inside;
use crate::transfer::Transfer;
use crate::{Hub, HubError, HubName};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A model or an adapter: a folder, or a file in it.
    Model,
    /// A data set: a file, or a folder with files for training.
    Data,
}

impl Content {
    fn kind(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Data => "data set",
        }
    }

    fn repo_type(self) -> RepoType {
        match self {
            Self::Model => RepoType::Model,
            Self::Data => RepoType::Dataset,
        }
    }
}

/// A repository at a commit, and what of it is wanted.
struct Wanted<'a> {
    name: &'a HubName,
    content: Content,
    files: Vec<String>,
    /// Folder of the commit in the cache.
    snapshot: PathBuf,
}

impl Hub {
    /// The folder or file in the cache that a name stands for, after what lacks was fetched. Only the files
    /// that are needed are: of a model its safetensors, configuration, tokenizer and templates; of data the
    /// files for training, if names tell them apart; of a file the file.
    ///
    /// Without the network, what the cache has is taken.
    ///
    /// # Errors
    /// If there is no such repository or file, if it may not be read, if its files cannot be used, or if a
    /// connection breaks again and again: the next attempt goes on where this one ended.
    pub fn fetch(
        &self,
        name: &HubName,
        content: Content,
        transfer: &mut dyn Transfer,
    ) -> Result<PathBuf, HubError> {
        if let Some(variable) = self.offline {
            return self.cached(name, content, &format!("{variable} is set"));
        }
        let client = Client::new(self);
        let repo = self.repo(name, content);
        let info = match client.info(&repo) {
            Ok(info) => info,
            Err(error) if error.status().is_none() => {
                let why = format!("the Hub at {} cannot be reached: {error}", self.endpoint);
                let path = self.cached(name, content, &why)?;
                transfer.note(&format!("{why}; what the cache has of {name} is used"));
                return Ok(path);
            }
            Err(error) => return Err(self.failed(name, content, "asking for its files", &error)),
        };
        let commit = info.sha;
        if !is_inside(&commit) || commit.contains('/') {
            return Err(self.nonsense(name, format!("it answers with the commit `{commit}`")));
        }
        let files: Vec<String> = info
            .siblings
            .into_iter()
            .map(|file| file.rfilename)
            .collect();
        if let Some(bad) = files.iter().find(|file| !is_inside(file)) {
            return Err(self.nonsense(name, format!("it has a file `{bad}`")));
        }
        let snapshot = self.folder(&repo).join("snapshots").join(&commit);
        let wanted = Wanted {
            name,
            content,
            files,
            snapshot,
        };
        self.complete(&client, &wanted, transfer)
    }

    /// Fetches what lacks; the path of what was asked for.
    fn complete(
        &self,
        client: &Client,
        wanted: &Wanted,
        transfer: &mut dyn Transfer,
    ) -> Result<PathBuf, HubError> {
        let Wanted {
            name,
            files,
            snapshot,
            ..
        } = wanted;
        let mut get = |file: &str| self.get(client, wanted, file, &mut *transfer);
        let title = name.repo.as_str();
        let asked = name.path.as_deref().unwrap_or_default();
        if files.iter().any(|file| file == asked) {
            for file in parts(asked, files) {
                get(file)?;
            }
            return Ok(snapshot.join(asked));
        }
        let folder = match asked {
            "" => String::new(),
            path => format!("{path}/"),
        };
        if !files.iter().any(|file| file.starts_with(&folder)) {
            let has: Vec<&str> = files.iter().map(String::as_str).collect();
            return Err(HubError::NoSuchFile {
                name: title.to_owned(),
                path: asked.to_owned(),
                has: some(&has),
            });
        }
        match wanted.content {
            Content::Data => {
                let data = choose::of_data(title, files, &folder)?;
                for file in &data {
                    get(file)?;
                }
                match &data[..] {
                    [file] => Ok(snapshot.join(file)),
                    _ => one_folder(title, snapshot, &data),
                }
            }
            Content::Model => {
                if let Some(file) = only_gguf(files, &folder) {
                    get(file)?;
                    return Ok(snapshot.join(file));
                }
                let chosen = choose::of_model(title, files, &folder)?;
                for file in &chosen.beside {
                    get(file)?;
                }
                let listed = listed(&snapshot.join(&folder).join(INDEX));
                for file in &chosen.weights {
                    let alone = file[folder.len()..].starts_with("adapter_");
                    if alone
                        || listed
                            .as_ref()
                            .is_none_or(|l| l.contains(&file[folder.len()..]))
                    {
                        get(file)?;
                    }
                }
                Ok(snapshot.join(folder.trim_end_matches('/')))
            }
        }
    }

    /// One file, unless it is here.
    fn get(
        &self,
        client: &Client,
        wanted: &Wanted,
        file: &str,
        transfer: &mut dyn Transfer,
    ) -> Result<(), HubError> {
        let Wanted { name, content, .. } = wanted;
        let target = wanted.snapshot.join(file);
        if target.exists() {
            return Ok(());
        }
        let download = Download {
            client,
            cache: &self.cache,
            repo: &self.repo(name, *content),
            file,
            title: &name.repo,
        };
        let path = download.run(transfer);
        let doing = format!("fetching {file}");
        let path = path.map_err(|failure| self.failed(name, *content, &doing, &failure))?;
        match path == target {
            true => Ok(()),
            false => Err(HubError::Unusable {
                name: name.to_string(),
                reason: "it changed while it was fetched; once more fetches the new one".into(),
            }),
        }
    }

    /// What the cache has.
    fn cached(&self, name: &HubName, content: Content, why: &str) -> Result<PathBuf, HubError> {
        let folder = self.folder(&self.repo(name, content));
        let revision = name.revision();
        let commit = fs::read_to_string(folder.join("refs").join(revision));
        let commit = commit.map_or_else(|_| revision.to_owned(), |text| text.trim().to_owned());
        let snapshot = folder.join("snapshots").join(commit);
        let path = match &name.path {
            Some(path) => snapshot.join(path),
            None => snapshot,
        };
        if path.exists() {
            return Ok(path);
        }
        Err(HubError::NotCached {
            name: name.to_string(),
            cache: self.cache.clone(),
            why: why.to_owned(),
        })
    }

    fn repo(&self, name: &HubName, content: Content) -> Repo {
        let revision = name.revision().to_owned();
        Repo::with_revision(name.repo.clone(), content.repo_type(), revision)
    }

    fn folder(&self, repo: &Repo) -> PathBuf {
        self.cache.join(repo.folder_name())
    }

    fn failed(&self, name: &HubName, content: Content, doing: &str, error: &Failure) -> HubError {
        let (endpoint, kind) = (self.endpoint.clone(), content.kind());
        let repo = name.repo.clone();
        match error.status() {
            Some(404) => HubError::NotFound {
                name: name.to_string(),
                kind,
                endpoint,
            },
            // The Hub says so as well of what is not there.
            Some(401) if self.token.is_none() => HubError::NotFound {
                name: name.to_string(),
                kind,
                endpoint,
            },
            Some(status @ (401 | 403)) => HubError::Refused {
                name: repo,
                status,
                endpoint,
                verb: "read",
            },
            _ => HubError::Network {
                name: name.to_string(),
                doing: doing.to_owned(),
                reason: error.to_string(),
            },
        }
    }

    fn nonsense(&self, name: &HubName, what: String) -> HubError {
        HubError::Network {
            name: name.to_string(),
            doing: "asking for its files".to_owned(),
            reason: format!("{} is no Hub that can be trusted: {what}", self.endpoint),
        }
    }
}

/// The files that a file of weights is stored in: all of `NAME-00001-of-00003.gguf`, else the file alone.
fn parts<'a>(file: &'a str, files: &'a [String]) -> Vec<&'a str> {
    let split = |file: &'a str| {
        let (rest, count) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        (digits(number) && digits(count)).then_some((stem, count))
    };
    match split(file) {
        None => vec![file],
        whole => {
            let same = files.iter().map(String::as_str);
            same.filter(|other| split(other) == whole).collect()
        }
    }
}

/// The only GGUF file where there are no safetensors.
fn only_gguf<'a>(files: &'a [String], folder: &str) -> Option<&'a str> {
    let mut inside = files.iter().filter(|file| file.starts_with(folder));
    if inside.clone().any(|file| file.ends_with(".safetensors")) {
        return None;
    }
    let mut ggufs = inside.by_ref().filter(|file| file.ends_with(".gguf"));
    let first = ggufs.next()?;
    ggufs.next().is_none().then_some(first)
}

/// The files that an index of weights names.
fn listed(index: &Path) -> Option<BTreeSet<String>> {
    let index: Value = serde_json::from_slice(&fs::read(index).ok()?).ok()?;
    let names = index.get("weight_map")?.as_object()?.values();
    Some(
        names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect(),
    )
}

/// The folder that all of these files are in.
fn one_folder(name: &str, snapshot: &Path, files: &[String]) -> Result<PathBuf, HubError> {
    let folder = |file: &'_ String| {
        Path::new(file)
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default()
    };
    let folders: BTreeSet<PathBuf> = files.iter().map(folder).collect();
    let mut each = folders.iter();
    match (each.next(), each.next()) {
        (Some(folder), None) => Ok(snapshot.join(folder)),
        _ => {
            let names: Vec<String> = folders
                .iter()
                .map(|folder| format!("{name}/{}", folder.display()))
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Err(HubError::Unusable {
                name: name.to_owned(),
                reason: format!("it has data in several folders; name one: {}", some(&names)),
            })
        }
    }
}
