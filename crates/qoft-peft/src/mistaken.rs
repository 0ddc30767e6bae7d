//! What a folder is that is no adapter, and what to do about it.

use std::path::Path;

use qoft_core::{Error, Result, hub};

use crate::tensors::{CONFIG, WEIGHTS};

/// The pickle that older versions of PEFT wrote.
const PICKLE: &str = "adapter_model.bin";

/// Fails for a folder that has not both files of an adapter.
///
/// # Errors
/// The error says what the folder is instead.
pub fn expect_adapter(folder: &Path) -> Result<()> {
    match no_adapter(folder) {
        None => Ok(()),
        Some(reason) => Err(Error::file(folder, reason)),
    }
}

/// Why a folder has not both files of an adapter, if it has not.
fn no_adapter(folder: &Path) -> Option<String> {
    let has = |name: &str| folder.join(name).exists();
    if has(CONFIG) && has(WEIGHTS) {
        return None;
    }
    Some(if !folder.exists() {
        let missing = "no such adapter folder";
        match hub::download(folder) {
            Some(how) => format!("{missing}, and {how}"),
            None => missing.into(),
        }
    } else if !folder.is_dir() {
        format!("a file; an adapter is a folder with {CONFIG} and {WEIGHTS}")
    } else if has(PICKLE) && !has(WEIGHTS) {
        format!(
            "its weights are in {PICKLE}, a Python pickle, which can run code, and is not read; \
             PEFT writes {WEIGHTS}: load the adapter there and call `save_pretrained(folder)`"
        )
    } else if let (false, Some(checkpoint)) = (has(CONFIG), last_checkpoint(folder)) {
        format!(
            "no adapter: it has no {CONFIG}; a training here has not come to its end, and \
             {checkpoint} has the adapter as it was then"
        )
    } else if let (false, Some(snapshot)) = (has(CONFIG), hub::snapshot(folder, CONFIG)) {
        let snapshot = snapshot.display();
        format!(
            "the root of an adapter in a cache of the Hugging Face Hub; the adapter is {snapshot}"
        )
    } else if let (false, Some(inside)) = (has(CONFIG), hub::only_inside(folder, CONFIG)) {
        format!(
            "no adapter: it has no {CONFIG}; {} is one",
            inside.display()
        )
    } else if !has(CONFIG) && has("config.json") {
        format!("no adapter: it has no {CONFIG}, but a config.json: this is a model")
    } else {
        let missing = if has(CONFIG) { WEIGHTS } else { CONFIG };
        format!("no adapter: it has no {missing}")
    })
}

/// The checkpoint after the most steps.
fn last_checkpoint(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let checkpoints = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let steps: usize = name.strip_prefix("checkpoint-")?.parse().ok()?;
        entry.path().join(CONFIG).exists().then_some((steps, name))
    });
    checkpoints.max().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_no_adapter_is_told_with_what_to_do() {
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str| work.path().join(name);
        let write = |name: &str| {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), "{}").unwrap();
        };
        let says = |name: &str, needle: &str| {
            let reason = no_adapter(&path(name)).unwrap();
            assert!(reason.contains(needle), "{reason}");
        };
        says("none", "no such adapter folder");
        let how = no_adapter(Path::new("some-org/some-adapter")).unwrap();
        assert!(how.contains("hf download some-org/some-adapter"), "{how}");
        write("models--org--name/snapshots/abc/adapter_config.json");
        says("models--org--name", "cache of the Hugging Face Hub");
        says("models--org--name", "snapshots/abc");
        write("outer/inner/adapter_config.json");
        says("outer", "inner is one");
        write("old/adapter_config.json");
        says("old", "has no adapter_model.safetensors");
        write("old/adapter_model.bin");
        says("old", "pickle");
        write("old/adapter_model.safetensors");
        assert_eq!(no_adapter(&path("old")), None);
        says("old/adapter_config.json", "a file");
        write("model/config.json");
        says("model", "this is a model");
        write("run/log.jsonl");
        says("run", "has no adapter_config.json");
        write("run/checkpoint-4/adapter_config.json");
        write("run/checkpoint-12/adapter_config.json");
        says("run", "checkpoint-12 has the adapter");
    }
}
