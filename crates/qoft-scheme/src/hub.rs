//! Names and caches of the Hugging Face Hub, which people give where a folder is wanted.

use std::path::{Path, PathBuf};

/// How to get what a path names, if there is no such path and it looks like a name on the Hub:
/// nothing is downloaded here.
pub fn download(path: &Path) -> Option<String> {
    let name = path.display();
    is_name(path).then(|| {
        format!(
            "nothing is downloaded: `hf download {name} --local-dir {name}` of the package \
             huggingface_hub fetches what has that name there"
        )
    })
}

/// Whether a path looks like `OWNER/NAME`.
fn is_name(path: &Path) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(allowed)
    };
    let path = path.to_str().unwrap_or_default();
    matches!(path.split('/').collect::<Vec<_>>()[..], [owner, name] if part(owner) && part(name))
}

/// The folder with this file in the root of a cache: that of the main branch, or the only one.
pub fn snapshot(root: &Path, file: &str) -> Option<PathBuf> {
    let snapshots = root.join("snapshots");
    let main = std::fs::read_to_string(root.join("refs").join("main")).ok();
    let main = main.map(|revision| snapshots.join(revision.trim()));
    main.filter(|main| main.join(file).exists())
        .or_else(|| only_inside(&snapshots, file))
}

/// The only folder in a folder that has this file.
pub fn only_inside(folder: &Path, file: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut found = entries
        .map(|entry| entry.path())
        .filter(|path| path.join(file).exists());
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_no_names_on_the_hub() {
        for path in ["a", "./a", "../a", "/a/b", "a/b/c", "a/", "models/my model"] {
            assert_eq!(download(Path::new(path)), None, "{path}");
        }
        let how = download(Path::new("meta-llama/Llama-3.2-1B")).unwrap();
        assert!(how.contains("hf download meta-llama/Llama-3.2-1B"), "{how}");
    }
}
