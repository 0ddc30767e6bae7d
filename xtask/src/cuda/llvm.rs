//! LLVM where the build of CubeCL's compiler looks for it. That build downloads it from GitHub; PyPI has the same
//! version as static libraries, for machines that reach package registries only.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::pip;
use crate::say;

/// The crate that downloads LLVM.
const BUNDLER: &str = "tracel-llvm-bundler";
/// The version of LLVM in [`PACKAGES`].
const VERSION: &str = "23.1.";
/// Headers, `llvm-config` and the libraries for this machine, and those for NVIDIA's.
const PACKAGES: [&str; 2] = [
    "mlc-llvm-static==23.1.1.post0",
    "mlc-llvm-static-extra-targets==23.1.1.post0",
];
/// What the bundler leaves in a folder that is complete.
const MARKER: &str = ".tracel-llvm-installed";

/// Puts LLVM into the user's folder for data, unless it is there.
pub fn set_up(root: &Path) -> Result<()> {
    let lock = root.join("Cargo.lock");
    let text = fs::read_to_string(&lock).with_context(|| lock.display().to_string())?;
    let version =
        locked(&text, BUNDLER).with_context(|| format!("{} has no {BUNDLER}", lock.display()))?;
    if !version.starts_with(VERSION) {
        bail!(
            "{BUNDLER} {version} wants another LLVM than {}",
            PACKAGES.join(" and ")
        );
    }
    let parent = data_home()?.join("tracel");
    let folder = parent.join(format!("tracel-llvm-{version}"));
    if folder.join(MARKER).is_file() {
        return say(&format!("LLVM is in {}", folder.display()));
    }
    say(&format!("\n=== LLVM for {}", folder.display()))?;
    fs::create_dir_all(&parent).with_context(|| parent.display().to_string())?;
    let unpacked = tempfile::tempdir_in(&parent)?;
    pip::unpack(&PACKAGES, unpacked.path())?;
    let found = unpacked.path().join("mlc_llvm_static").join("static");
    fs::write(found.join(MARKER), "")?;
    // What an unfinished download left has no marker, and is in the way.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::rename(&found, &folder).with_context(|| folder.display().to_string())?;
    say(&format!(
        "--- LLVM is in {}; builds with the feature cuda find it there",
        folder.display()
    ))
}

/// The version of a package in a lock file.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

/// The folder that the bundler takes for the user's data.
fn data_home() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| Some(variable("HOME")?.join(".local/share")))
        .context("neither XDG_DATA_HOME nor HOME is set")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locked_bundler_wants_the_version_that_is_unpacked() {
        let lock = include_str!("../../../Cargo.lock");
        let version = locked(lock, BUNDLER).unwrap();
        assert!(version.starts_with(VERSION), "{version}");
        assert_eq!(locked(lock, "no-such-package"), None);
    }
}
