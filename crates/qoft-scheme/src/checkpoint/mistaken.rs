//! What a path is that is no folder of a model, and what to do about it.

use std::path::{Path, PathBuf};

/// The file that makes a folder a model's.
const CONFIG: &str = "config.json";

/// Why there is no `config.json` at a path, if there is none.
pub(super) fn no_model(path: &Path) -> Option<String> {
    if path.join(CONFIG).exists() {
        return None;
    }
    if !path.exists() {
        return Some(match is_hub_id(path) {
            true => format!(
                "no such model folder, and nothing is downloaded: `hf download {0} --local-dir {0}` \
                 of the package huggingface_hub fetches the model of that name",
                path.display()
            ),
            false => "no such model folder".into(),
        });
    }
    if !path.is_dir() {
        let reason = "a file; a model is a folder with config.json and safetensors beside it, and \
                      files of other formats are opened by `Containers`";
        return Some(reason.into());
    }
    let missing = format!("no model folder: it has no {CONFIG}");
    let reason = if let Some(snapshot) = snapshot(path) {
        let snapshot = snapshot.display();
        format!("the root of a model in a cache of the Hugging Face Hub; the model is {snapshot}")
    } else if path.join("adapter_config.json").exists() {
        format!("{missing}, but an adapter_config.json: this is an adapter, and --adapter takes it")
    } else if let Some(folder) = only_model_inside(path) {
        format!("{missing}; {} is one", folder.display())
    } else if path.join("params.json").exists() {
        format!("{missing}, but a params.json: this is no model in Hugging Face's layout")
    } else {
        missing
    };
    Some(reason)
}

/// Whether a path that does not exist looks like the name of a model on the Hub.
fn is_hub_id(path: &Path) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let part = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric());
    match path
        .to_str()
        .map(|path| path.split('/').collect::<Vec<_>>())
    {
        Some(parts) => parts.len() == 2 && parts.iter().all(|p| part(p) && p.chars().all(allowed)),
        None => false,
    }
}

/// The model in the root of a cache: what its main branch is, or the only one.
fn snapshot(root: &Path) -> Option<PathBuf> {
    let snapshots = root.join("snapshots");
    let main = std::fs::read_to_string(root.join("refs").join("main")).ok();
    let main = main.map(|revision| snapshots.join(revision.trim()));
    main.filter(|main| main.join(CONFIG).exists())
        .or_else(|| only_model_inside(&snapshots))
}

/// The only folder in a folder that is a model's.
fn only_model_inside(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut models = entries
        .map(|entry| entry.path())
        .filter(|path| path.join(CONFIG).exists());
    let first = models.next()?;
    models.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_no_model_is_told_with_what_to_do() {
        let work = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = work.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let says = |path: &Path, needle: &str| {
            let reason = no_model(path).unwrap();
            assert!(reason.contains(needle), "{reason}");
        };
        let root = folder("models--org--name");
        let snapshot = folder("models--org--name/snapshots/abc");
        says(&root, "no config.json");
        fs::write(snapshot.join(CONFIG), "{}").unwrap();
        says(&root, "cache of the Hugging Face Hub");
        says(&root, &snapshot.display().to_string());
        let second = folder("models--org--name/snapshots/def");
        fs::write(second.join(CONFIG), "{}").unwrap();
        says(&root, "no config.json");
        folder("models--org--name/refs");
        fs::write(root.join("refs/main"), "def\n").unwrap();
        says(&root, "snapshots/def");
        assert_eq!(no_model(&second), None);

        let adapter = folder("adapter");
        fs::write(adapter.join("adapter_config.json"), "{}").unwrap();
        says(&adapter, "--adapter");
        says(&adapter.join("adapter_config.json"), "a file");
        says(&work.path().join("none"), "no such model folder");
        says(
            Path::new("some-org/Some_Model-1.5B"),
            "hf download some-org/Some_Model-1.5B",
        );
        let outer = folder("outer/inner");
        fs::write(outer.join(CONFIG), "{}").unwrap();
        says(&folder("outer"), "outer/inner is one");
    }

    #[test]
    fn paths_are_no_names_on_the_hub() {
        for path in ["a", "./a", "../a", "/a/b", "a/b/c", "a/", "models/my model"] {
            assert!(!is_hub_id(Path::new(path)), "{path}");
        }
        assert!(is_hub_id(Path::new("meta-llama/Llama-3.2-1B")));
    }
}
