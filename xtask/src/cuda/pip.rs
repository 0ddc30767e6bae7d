//! Files of packages on PyPI, without what these want to be installed beside them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::say;

/// Unpacks packages with their versions into a folder.
pub fn unpack(packages: &[&str], folder: &Path) -> Result<()> {
    const ARGS: [&str; 6] = ["-m", "pip", "install", "--quiet", "--no-deps", "--target"];
    say(&format!(
        "    python3 {} {} {}",
        ARGS.join(" "),
        folder.display(),
        packages.join(" ")
    ))?;
    let mut python = Command::new("python3");
    python.args(ARGS).arg(folder).args(packages);
    // Whose files these are does not matter in a folder of its own.
    python.env("PIP_ROOT_USER_ACTION", "ignore");
    let status = python.status().context("cannot run python3")?;
    if !status.success() {
        bail!("pip failed ({status}); it has these packages for Linux on x86-64 and aarch64");
    }
    Ok(())
}
