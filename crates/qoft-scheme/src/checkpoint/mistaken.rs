//! What a path is that is no folder of a model, and what to do about it.

use std::path::Path;

use crate::hub;

/// The file that makes a folder a model's.
const CONFIG: &str = "config.json";

/// Why there is no `config.json` at a path, if there is none.
pub(super) fn no_model(path: &Path) -> Option<String> {
    if path.join(CONFIG).exists() {
        return None;
    }
    if !path.exists() {
        let missing = "no such model folder";
        return Some(match hub::download(path) {
            Some(how) => format!("{missing}, and {how}"),
            None => missing.into(),
        });
    }
    if !path.is_dir() {
        let reason = "a file; a model is a folder with config.json and safetensors beside it, and \
                      files of other formats are opened by `Containers`";
        return Some(reason.into());
    }
    let missing = format!("no model folder: it has no {CONFIG}");
    let reason = if let Some(snapshot) = hub::snapshot(path, CONFIG) {
        let snapshot = snapshot.display();
        format!("the root of a model in a cache of the Hugging Face Hub; the model is {snapshot}")
    } else if path.join("adapter_config.json").exists() {
        format!("{missing}, but an adapter_config.json: this is an adapter, and --adapter takes it")
    } else if let Some(folder) = hub::only_inside(path, CONFIG) {
        format!("{missing}; {} is one", folder.display())
    } else if path.join("params.json").exists() {
        format!("{missing}, but a params.json: this is no model in Hugging Face's layout")
    } else {
        missing
    };
    Some(reason)
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
}
