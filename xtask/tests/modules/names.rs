//! Names of schemes and models, which the crates that all of them share do not know.

use std::path::{Path, PathBuf};

use super::packages;

/// Crates that know neither.
pub const NEUTRAL: &[&str] = &[
    "qoft",
    "qoft-boft",
    "qoft-chat",
    "qoft-conformance",
    "qoft-core",
    "qoft-derive",
    "qoft-hra",
    "qoft-kernels",
    "qoft-oft",
    "qoft-peft",
    "qoft-scheme",
    "qoft-train",
];

/// Other names of schemes than those of their crates, and of libraries that belong to one.
const LIBRARIES: &[&str] = &["bitsandbytes", "neural compressor", "neural_compressor"];
/// Schemes that are called as the numbers that they consist of, which everybody may name.
const NUMBERS: &[&str] = &["fp8"];
/// Families of models, by the beginnings of their names; those that we have and others.
const MODELS: &[&str] = &[
    "cohere",
    "falcon",
    "gemma",
    "gpt2",
    "gpt-2",
    "granite",
    "llama",
    "mistral",
    "mixtral",
    "nemotron",
    "olmo",
    "phi3",
    "phi-3",
    "qwen",
    "smollm",
    "starcoder",
];

/// What models call their parts, as texts in code: everybody else asks the model.
const PARTS: &[&str] = &[
    "\"embed_tokens\"",
    "\"word_embeddings\"",
    "\"wpe\"",
    "\"wte\"",
];

/// A name in a neutral crate.
#[derive(Debug, PartialEq, Eq)]
pub struct Mention {
    /// From 1 on.
    pub line: usize,
    pub name: String,
}

/// The names of schemes and models.
pub fn names() -> Vec<String> {
    let all = LIBRARIES
        .iter()
        .chain(MODELS)
        .chain(PARTS)
        .map(|name| (*name).to_owned());
    all.chain(schemes()).collect()
}

/// The crates of schemes, as the facade's feature for all of them lists them.
fn schemes() -> Vec<String> {
    let facade = packages::named("qoft").file("Cargo.toml");
    let facade = std::fs::read_to_string(facade).expect("the facade");
    let all = facade
        .lines()
        .find_map(|line| line.strip_prefix("all-schemes = ["));
    let all = all
        .expect("the feature of all schemes")
        .trim_end_matches(']');
    let name = |name: &str| name.trim().trim_matches('"').to_owned();
    let all = all.split(',').map(name);
    all.filter(|name| !NUMBERS.contains(&name.as_str()))
        .collect()
}

/// The sources of a package that end up in programs.
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.join("src")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Where a source file has one of the names, outside of its tests and of examples in its
/// documentation: code there, and lines that say "such as".
pub fn mentions(text: &str, names: &[String]) -> Vec<Mention> {
    let mut found = Vec::new();
    let mut example = false;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let next = lines.peek().map_or("", |(_, next)| next.trim_start());
        if line == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{') {
            // Tests stand at the end.
            break;
        }
        let comment = line.trim_start();
        if comment.starts_with("//!") || comment.starts_with("///") {
            example ^= comment.contains("```");
            if example || comment.contains("such as") {
                continue;
            }
        }
        let line = line.to_lowercase();
        let mut names = names.iter().filter(|name| line.contains(name.as_str()));
        found.extend(names.next().map(|name| Mention {
            line: index + 1,
            name: name.clone(),
        }));
    }
    found
}
