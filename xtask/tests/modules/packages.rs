//! The packages of the repository.

use std::path::{Path, PathBuf};

/// A package by its folder.
pub struct Package(PathBuf);

impl Package {
    /// The name of the folder, which is that of the package.
    pub fn name(&self) -> String {
        let name = self.0.file_name().expect("a folder");
        name.to_string_lossy().into_owned()
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The files at which its crates start: library, program, and tests and examples that have
    /// modules.
    pub fn roots(&self) -> Vec<PathBuf> {
        let mut roots = vec![self.0.join("src/lib.rs"), self.0.join("src/main.rs")];
        for kind in ["tests", "examples", "benches", "criterion"] {
            let folders = folders(&self.0.join(kind));
            roots.extend(folders.iter().map(|folder| folder.join("main.rs")));
        }
        roots.retain(|root| root.exists());
        roots
    }
}

/// The folder of the repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All packages: the members of the workspace and the examples that are none.
pub fn all() -> Vec<Package> {
    let top = top();
    let mut packages = vec![top.join("xtask")];
    packages.extend(folders(&top.join("crates")));
    packages.extend(folders(&top.join("examples")));
    packages.retain(|folder| folder.join("Cargo.toml").exists());
    packages.into_iter().map(Package).collect()
}

/// The package of this name.
pub fn named(name: &str) -> Package {
    let mut packages = all().into_iter();
    packages
        .find(|package| package.name() == name)
        .expect("a package")
}

/// The folders in a folder, by name; none if it does not exist.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}
