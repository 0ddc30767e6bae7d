//! Names on the Hugging Face Hub where a path is wanted: what they stand for is fetched. A path that
//! exists is a path, whatever it looks like.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A model or an adapter.
    Model,
    /// A data set.
    Data,
}

/// The path here, of a model, an adapter or data.
///
/// # Errors
/// If a name on the Hub cannot be fetched.
pub fn place(path: &Path, wanted: Wanted) -> Result<PathBuf> {
    if wanted == Wanted::Data && path == Path::new("-") {
        return standard_input();
    }
    match path.exists() {
        true => Ok(path.to_owned()),
        false => fetched(path, wanted),
    }
}

/// The name that standard input has among files.
#[cfg(unix)]
fn standard_input() -> Result<PathBuf> {
    Ok("/dev/stdin".into())
}

/// Standard input is no file here.
#[cfg(not(unix))]
fn standard_input() -> Result<PathBuf> {
    anyhow::bail!("-: standard input cannot be read as a file on this system; give the path of one")
}

#[cfg(feature = "hub")]
fn fetched(path: &Path, wanted: Wanted) -> Result<PathBuf> {
    use qoft_hub::{Content, Hub};
    let Some(name) = name(path) else {
        return Ok(path.to_owned());
    };
    let content = match wanted {
        Wanted::Model => Content::Model,
        Wanted::Data => Content::Data,
    };
    let mut bars = crate::progress::Transfers::new();
    Ok(Hub::from_env()?.fetch(&name, content, &mut bars)?)
}

/// The name on the Hub that something is which is no path here.
#[cfg(feature = "hub")]
fn name(path: &Path) -> Option<qoft_hub::HubName> {
    let name = path.to_str().and_then(qoft_hub::HubName::parse);
    name.filter(|name| name.path.is_some() || !is_file(&name.repo))
}

/// A path from the root, so that it is valid wherever it is used; a name on the Hub stays as it is.
pub fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    #[cfg(feature = "hub")]
    if !path.exists() && name(path).is_some() {
        return Ok(path.to_owned());
    }
    path.canonicalize().or_else(|_| std::path::absolute(path))
}

/// Whether something is called as a file is, and no repository: `data/train.jsonl` is a path that does not
/// exist.
#[cfg(feature = "hub")]
fn is_file(name: &str) -> bool {
    const ENDS: [&str; 12] = [
        "csv",
        "gguf",
        "gz",
        "json",
        "jsonl",
        "ndjson",
        "parquet",
        "safetensors",
        "tsv",
        "txt",
        "yaml",
        "zst",
    ];
    let end = name
        .rsplit_once('.')
        .map(|(_, end)| end.to_ascii_lowercase());
    end.is_some_and(|end| ENDS.contains(&end.as_str()))
}

/// Without the feature, whoever opens the path says how to get what it names.
#[cfg(not(feature = "hub"))]
fn fetched(path: &Path, _: Wanted) -> Result<PathBuf> {
    Ok(path.to_owned())
}

/// What an adapter says of its base model: a name on the Hub without its revision, and that; or a path.
pub fn name_and_revision(model: &Path) -> (String, Option<String>) {
    let text = model.display().to_string();
    match text.split_once('@') {
        Some((name, revision)) if !model.exists() => (name.to_owned(), Some(revision.to_owned())),
        _ => (text, None),
    }
}
