//! The dependencies of the workspace by the lists of `deny.toml`: each has a licence that is allowed, comes
//! from crates.io, and none is banned. Advisories need a network: `cargo deny check` looks for those.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The packages that are not the workspace's own.
fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list").iter();
    packages
        .filter(|package| !package["source"].is_null())
        .cloned()
        .collect()
}

/// The texts in quotes of a list in `deny.toml`; of tables those of their names.
fn listed(text: &str, section: &str, key: &str) -> Vec<String> {
    let section = text
        .split(&format!("[{section}]"))
        .nth(1)
        .expect("a section");
    let list = section
        .split(&format!("\n{key} = ["))
        .nth(1)
        .expect("a list");
    let list = list.split("\n]").next().expect("its end");
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Whether an SPDX expression, or the older form with `/`, can be met by what is allowed.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let expression = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let mut words = &words[..];
    let met = any(&mut words, allowed);
    met && words.is_empty()
}

fn any(words: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = all(words, allowed);
    while let ["OR", rest @ ..] = words {
        *words = rest;
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = one(words, allowed);
    while let ["AND", rest @ ..] = words {
        *words = rest;
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &[String]) -> bool {
    match words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any(words, allowed);
            *words = words.strip_prefix(&[")"]).unwrap_or_default();
            met
        }
        [name, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(&format!("{name} WITH {exception}"))
        }
        [name, rest @ ..] => {
            *words = rest;
            allowed.iter().any(|allowed| allowed == name)
        }
        [] => false,
    }
}

#[test]
fn licences_and_sources_are_allowed_and_nothing_is_banned() {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let (allowed, banned) = (
        listed(&text, "licenses", "allow"),
        listed(&text, "bans", "deny"),
    );
    let mut report = String::new();
    let packages = packages();
    assert!(packages.len() > 100, "{}", packages.len());
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        // A crate without the key has its licence in a file.
        let licence = package["license"].as_str();
        if licence.is_some_and(|licence| !is_met(licence, &allowed)) {
            report.push_str(&format!("{name}: the licence {licence:?} is not allowed\n"));
        }
        if licence.is_none() && package["license_file"].is_null() {
            report.push_str(&format!("{name}: no licence\n"));
        }
        let source = package["source"].as_str().unwrap_or_default();
        if !source.starts_with("registry+https://github.com/rust-lang/crates.io-index") {
            report.push_str(&format!("{name}: comes from {source}\n"));
        }
        if banned.contains(&name) {
            report.push_str(&format!("{name}: is banned\n"));
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    let allowed = ["MIT", "BSD-3-Clause", "Apache-2.0 WITH LLVM-exception"].map(String::from);
    for met in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(Apache-2.0 OR MIT) AND BSD-3-Clause",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(is_met(met, &allowed), "{met}");
    }
    for unmet in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "Apache-2.0",
        "MIT AND (GPL-3.0 OR Apache-2.0)",
        "",
    ] {
        assert!(!is_met(unmet, &allowed), "{unmet}");
    }
}
