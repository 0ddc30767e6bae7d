//! Which files of a folder hold the tensors: in the order in which transformers looks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::read_json;
use crate::mapped::MappedTensors;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Files of weights that are no model's.
const NO_MODEL: [&str; 2] = ["adapter_model.safetensors", "consolidated.safetensors"];

/// Opened files, and for each tensor the number of its file.
pub type Opened = (Vec<MappedTensors>, BTreeMap<String, usize>);

/// Opens what `config.json` names, or `model.safetensors`, or what an index lists, or the only
/// file of weights that there is, whatever its name.
///
/// # Errors
/// If there is none, one is damaged or lies outside of the folder, or they contradict each other.
pub fn open(dir: &Path, config: &Value) -> Result<Opened> {
    if let Some(name) = config.get("transformers_weights").and_then(Value::as_str) {
        let path = dir.join(inside(
            &dir.join("config.json"),
            "transformers_weights",
            name,
        )?);
        return match name.ends_with(".json") {
            true => open_sharded(dir, &path),
            false => open_single(&path),
        };
    }
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    if single.is_file() {
        if index.is_file() && !names_only(&index, SINGLE) {
            tracing::warn!(
                "{}: `{SINGLE}` is read and `{INDEX}` is not, as transformers does",
                dir.display()
            );
        }
        return open_single(&single);
    }
    if index.is_file() {
        return open_sharded(dir, &index);
    }
    match &other_weights(dir)[..] {
        [only] => open_single(&dir.join(only)),
        [] => Err(Error::file(dir, no_safetensors(dir))),
        several => {
            let reason = format!(
                "found neither {SINGLE} nor {INDEX}, but {}; name the one to read {SINGLE}",
                several.join(", ")
            );
            Err(Error::file(dir, reason))
        }
    }
}

/// Whether an index places all tensors in one file, as that of a program does that always writes one.
fn names_only(index: &Path, file: &str) -> bool {
    let index = read_json(index).unwrap_or_default();
    let map = index.get("weight_map").and_then(Value::as_object);
    map.is_some_and(|map| map.values().all(|placed| placed == file))
}

/// Files of weights under other names, sorted.
fn other_weights(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> = names
        .filter(|name| name.ends_with(".safetensors") && !NO_MODEL.contains(&name.as_str()))
        .collect();
    found.sort();
    found
}

/// Why a folder without safetensors cannot be opened: often it holds pickles.
fn no_safetensors(dir: &Path) -> String {
    let missing = format!("found neither {SINGLE} nor {INDEX}");
    let pickles = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let pickle = pickles.map(|entry| entry.file_name()).find(|name| {
        let extension = Path::new(name).extension().unwrap_or_default();
        ["pt", "pth", "bin"].iter().any(|e| extension == *e)
    });
    match pickle {
        None => missing,
        Some(name) => format!(
            "{missing}, but `{}`: such a file is a Python pickle, which can run code, and is not \
             read. Save the model as safetensors with the library that wrote it (transformers: \
             `model.save_pretrained(folder)`; other libraries: often `save_to_safetensors`)",
            name.display()
        ),
    }
}

fn open_single(path: &Path) -> Result<Opened> {
    let shard = MappedTensors::open(path.to_owned())?;
    let tensors = shard.names().map(|name| (name.to_owned(), 0)).collect();
    Ok((vec![shard], tensors))
}

/// All tensors of the files that an index names, also those that it forgets.
fn open_sharded(dir: &Path, index_path: &Path) -> Result<Opened> {
    let index = read_json(index_path)?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::file(index_path, "`weight_map` is missing or no object"))?;
    let mut placed: BTreeMap<&str, String> = BTreeMap::new();
    for (name, file) in map {
        let file = file.as_str().ok_or_else(|| {
            Error::file(index_path, format!("`weight_map`: `{name}` names no file"))
        })?;
        placed.insert(name, inside(index_path, "weight_map", file)?);
    }
    let files: BTreeSet<&str> = placed.values().map(String::as_str).collect();
    let shards = files.iter().map(|file| MappedTensors::open(dir.join(file)));
    let shards: Vec<MappedTensors> = shards.collect::<Result<_>>()?;
    let numbers: BTreeMap<&str, usize> = files.into_iter().zip(0..).collect();

    let mut tensors: BTreeMap<String, usize> = BTreeMap::new();
    let mut forgotten = 0;
    for (number, shard) in shards.iter().enumerate() {
        for name in shard.names() {
            forgotten += usize::from(!placed.contains_key(name));
            let Some(&other) = tensors.get(name) else {
                tensors.insert(name.to_owned(), number);
                continue;
            };
            let (first, second) = (shards[other].tensor(name, name), shard.tensor(name, name));
            let same = first.zip(second).is_some_and(|(a, b)| a.is_same(&b));
            if !same {
                let reason = format!(
                    "tensor `{name}` has other values in {}; remove one of the two",
                    shards[other].path().display()
                );
                return Err(Error::file(shard.path(), reason));
            }
        }
    }
    if forgotten > 0 {
        tracing::warn!(
            "{}: {forgotten} tensors of its files are not listed; they are read all the same, as \
             transformers does",
            index_path.display()
        );
    }
    for (name, file) in &placed {
        let shard = &shards[numbers[file.as_str()]];
        if !shard.has(name) {
            let index = index_path.file_name().unwrap_or_default().display();
            let reason = format!("tensor `{name}` is missing, {index} places it here");
            return Err(Error::file(shard.path(), reason));
        }
    }
    Ok((shards, tensors))
}

/// A file name without what leads nowhere in it. Names that lead out of the checkpoint's folder are
/// refused; as in transformers they may lead into folders inside of it.
fn inside(names: &Path, key: &str, file: &str) -> Result<String> {
    let parts: Option<Vec<&str>> = Path::new(file)
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    match parts {
        Some(parts) if !parts.is_empty() => Ok(parts.join("/")),
        _ => Err(Error::file(
            names,
            format!("`{key}` names `{file}`, no file of this folder"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_may_name_the_single_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join(INDEX);
        let told = |text: &str| {
            std::fs::write(&index, text).unwrap();
            !names_only(&index, SINGLE)
        };
        assert!(!told(
            r#"{"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}"#
        ));
        assert!(told(
            r#"{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}"#
        ));
        assert!(told(r#"{"metadata": {}}"#));
        assert!(told("no JSON"));
    }
}
