//! The files of a model beside its tensors: tokenizer, templates, settings.

use std::path::{Path, PathBuf};

use qoft_core::{Error, Result, write_file};
use tracing::warn;

/// Kinds of files that belong to a model.
const KINDS: [&str; 4] = ["json", "jinja", "model", "txt"];
/// Folders of such files.
const FOLDERS: [&str; 1] = [TEMPLATES];
/// Chat templates with names.
const TEMPLATES: &str = "additional_chat_templates";
/// What is written anew, or says something of the old tensors.
const REPLACED: [&str; 2] = ["config.json", super::REPORT];
/// Files of adapters and of trainings, which are none of the model: with an `adapter_config.json`
/// transformers takes a folder for an adapter.
const OF_ADAPTERS: [&str; 4] = [
    "adapter_config.json",
    "adapters_below.json",
    "trainer_state.json",
    "training_args.json",
];

/// The file with the template of chats, which a tokenizer may do without.
const TEMPLATE: &str = "chat_template.jinja";
/// What a tokenizer is read from.
const TOKENIZER: [&str; 5] = [
    "added_tokens.json",
    TEMPLATE,
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Copies the files of a model's folder that are of use with other tensors, but those in `skip`.
///
/// A link that leads out of the folder is not followed: a folder of a stranger could have the
/// user's files copied into what is published. Only the cache of the Hugging Face Hub consists of
/// links, to the files beside it.
pub fn copy_others(from: &Path, to: &Path, skip: &[&str]) -> Result<()> {
    for path in entries(from)? {
        let name = file_name(&path);
        let wanted = is_kind(&path)
            && ![&REPLACED[..], &OF_ADAPTERS, skip].concat().contains(&name)
            && !name.ends_with(".index.json");
        if wanted {
            copy(&path, from, &to.join(name))?;
        }
    }
    FOLDERS
        .iter()
        .try_for_each(|folder| copy_folder(folder, from, to))
}

/// Copies a folder that lies in another one, if it is there.
fn copy_folder(name: &str, from: &Path, to: &Path) -> Result<()> {
    let (folder, to) = (from.join(name), to.join(name));
    if !folder.is_dir() || leads_out(&folder, from) {
        return Ok(());
    }
    std::fs::create_dir_all(&to).map_err(Error::io(&to))?;
    for path in entries(&folder)? {
        if is_kind(&path) {
            copy(&path, from, &to.join(file_name(&path)))?;
        }
    }
    Ok(())
}

/// Copies the files of a tokenizer and its chat templates from a model's folder; links that lead out of it are
/// left out.
///
/// # Errors
/// If the file system refuses.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    for name in TOKENIZER {
        copy(&from.join(name), from, &to.join(name))?;
    }
    copy_folder(TEMPLATES, from, to)
}

/// Puts the tokenizer of one folder in the place of that of another, whose chat templates stay if the first
/// has none.
///
/// # Errors
/// If the file system refuses.
pub fn replace_tokenizer(from: &Path, to: &Path) -> Result<()> {
    for name in TOKENIZER.iter().filter(|name| **name != TEMPLATE) {
        let old = to.join(name);
        if old.exists() {
            std::fs::remove_file(&old).map_err(Error::io(&old))?;
        }
    }
    let named = to.join(TEMPLATES);
    if from.join(TEMPLATE).exists() && named.exists() {
        std::fs::remove_dir_all(&named).map_err(Error::io(&named))?;
    }
    copy_tokenizer(from, to)
}

/// The paths of a folder whose names are text.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io(folder))?.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    paths.retain(|path| !file_name(path).is_empty());
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.unwrap_or_default()
}

fn is_kind(path: &Path) -> bool {
    let kind = path.extension().and_then(|kind| kind.to_str());
    kind.is_some_and(|kind| KINDS.contains(&kind))
}

fn copy(path: &Path, folder: &Path, to: &Path) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    if leads_out(path, folder) {
        warn!(
            "{} is a link out of the model's folder and is not copied",
            path.display()
        );
        return Ok(());
    }
    // Without the permissions of the original, which may not be written.
    let content = std::fs::read(path).map_err(Error::io(path))?;
    write_file(to, &content)
}

/// Whether a path in a model's folder is one of something outside.
fn leads_out(path: &Path, folder: &Path) -> bool {
    let (Ok(target), Ok(folder)) = (path.canonicalize(), folder.canonicalize()) else {
        return true;
    };
    !target.starts_with(&folder) && !hub_files(&folder).is_some_and(|f| target.starts_with(f))
}

/// Where the files are that the links of this folder stand for, if it is in a cache of the Hub:
/// `models--…/snapshots/REVISION` has links to `models--…/blobs`.
fn hub_files(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.parent()?;
    let blobs = snapshots.parent()?.join("blobs");
    let is_cache = file_name(snapshots) == "snapshots" && blobs.is_dir();
    is_cache.then_some(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    #[cfg(unix)]
    fn links_out_of_the_folder_are_not_followed() {
        use std::os::unix::fs::symlink;
        let work = tempfile::tempdir().unwrap();
        let (model, out) = (work.path().join("model"), work.path().join("out"));
        for folder in [&model, &out, &model.join("additional_chat_templates")] {
            fs::create_dir(folder).unwrap();
        }
        let secret = work.path().join("secret.txt");
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, model.join("notes.txt")).unwrap();
        symlink("../secret.txt", model.join("more.txt")).unwrap();
        symlink(&secret, model.join("additional_chat_templates/a.jinja")).unwrap();
        symlink(work.path().join("nothing"), model.join("dangling.txt")).unwrap();
        for name in [
            "tokenizer.json",
            "config.json",
            "adapter_config.json",
            "model.safetensors.index.json",
            "merge_report.json",
            "quant_config.json",
            "README.md",
            "additional_chat_templates/tool_use.jinja",
        ] {
            fs::write(model.join(name), name).unwrap();
        }
        symlink("tokenizer.json", model.join("link.json")).unwrap();
        copy_others(&model, &out, &["quant_config.json"]).unwrap();
        let names = |folder: &Path| -> Vec<String> {
            let paths = entries(folder).unwrap();
            paths
                .iter()
                .map(|path| file_name(path).to_owned())
                .collect()
        };
        let copied = ["additional_chat_templates", "link.json", "tokenizer.json"];
        assert_eq!(names(&out), copied);
        let templates = names(&out.join("additional_chat_templates"));
        assert_eq!(templates, ["tool_use.jinja"]);
    }

    #[test]
    #[cfg(unix)]
    fn a_cache_of_the_hub_is_made_of_links() {
        use std::os::unix::fs::symlink;
        let work = tempfile::tempdir().unwrap();
        let root = work.path().join("models--org--name");
        let (model, out) = (root.join("snapshots/abc"), work.path().join("out"));
        for folder in [&model, &root.join("blobs"), &out] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(root.join("blobs/123"), "{}").unwrap();
        symlink("../../blobs/123", model.join("tokenizer.json")).unwrap();
        symlink("../../../out", model.join("out.txt")).unwrap();
        copy_others(&model, &out, &[]).unwrap();
        assert_eq!(
            fs::read_to_string(out.join("tokenizer.json")).unwrap(),
            "{}"
        );
        assert_eq!(entries(&out).unwrap().len(), 1);
    }
}
