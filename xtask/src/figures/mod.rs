//! `cargo xtask figures`: measured figures in documents, from the files of results.
//!
//! A document asks for a figure by its name, and the command writes what the file says between the
//! marks: `<!-- figure: NAME -->…<!-- / -->`. A test finds documents that say something else.

mod choices;
mod compute_dtypes;
mod families;
mod loading;
mod marks;
mod memory;
mod merges;
mod schemes;
mod serving;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bench::Report;

/// Texts by the names under which documents ask for them.
type Figures = BTreeMap<&'static str, String>;

/// Writes the figures of the files of results into all documents that ask for them.
///
/// # Errors
///
/// If a file cannot be read or written, or a document asks for something that is not there.
pub fn run(root: &Path) -> Result<()> {
    for (path, before, after) in documents(root)? {
        if before != after {
            std::fs::write(&path, after).with_context(|| path.display().to_string())?;
            crate::say(&format!("wrote {}", path.display()))?;
        }
    }
    Ok(())
}

/// Each document as it is, and as it should be.
fn documents(root: &Path) -> Result<Vec<(PathBuf, String, String)>> {
    let docs = root.join("docs");
    let report = Report::read(&docs)?;
    let mut figures: Figures = report.figures().into_iter().collect();
    figures.extend(merges::figures(&docs)?);
    figures.extend(loading::figures(&docs)?);
    figures.extend(memory::figures(&docs)?);
    figures.extend(schemes::figures(&docs)?);
    figures.extend(choices::figures(&docs)?);
    figures.extend(compute_dtypes::figures(&docs)?);
    figures.extend(serving::figures(&docs)?);
    figures.extend(families::figures(&docs)?);
    let mut paths = vec![root.join("README.md")];
    for entry in std::fs::read_dir(&docs)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    paths.sort();
    let filled = paths.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let filled = match path.ends_with("docs/benchmarks.md") {
            true => report.markdown() + &families::section(&docs)?,
            false => marks::fill(&text, &figures).with_context(|| path.display().to_string())?,
        };
        Ok((path, text, filled))
    });
    filled.collect()
}

/// A file of results in `docs/benchmarks`.
fn results<T: serde::de::DeserializeOwned>(docs: &Path, name: &str) -> Result<T> {
    let path = docs.join("benchmarks").join(name);
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_what_was_measured() {
        for (path, before, after) in documents(crate::root().unwrap()).unwrap() {
            let path = path.display();
            assert!(before == after, "{path}: run `cargo xtask figures`");
        }
    }
}
