//! How long the files of Rust code are.

use std::fmt::{Display, Formatter};
use std::path::PathBuf;

use super::packages;

/// The most lines of a file, which has one concept.
pub const LONGEST: usize = 450;

/// Folders that hold no code of this repository.
const OTHERS: &[&str] = &["target"];

/// A file of Rust code.
pub struct File {
    path: PathBuf,
    /// Its lines.
    pub lines: usize,
}

impl Display for File {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.lines)
    }
}

/// All files of the repository: sources, tests, benchmarks, examples and fuzz targets.
pub fn all() -> Vec<File> {
    let mut open = vec![packages::top()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if !name.starts_with('.') && !OTHERS.contains(&&*name) {
                    open.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).expect("a readable file");
                let lines = text.lines().count();
                found.push(File { path, lines });
            }
        }
    }
    found
}
