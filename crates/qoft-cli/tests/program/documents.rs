//! What the documents say that schemes can do is what the program says.
#![cfg(feature = "all-schemes")]

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::{good, json_of};
use serde_json::Value;

fn document(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(name)).expect("a document")
}

fn backends() -> Vec<Value> {
    let all = json_of(&["backends"]);
    all["backends"].as_array().expect("a list").clone()
}

/// The first name between backquotes.
fn quoted(cell: &str) -> Option<&str> {
    cell.split('`').nth(1)
}

#[test]
fn the_table_of_merges_is_that_of_the_program() {
    let text = document("docs/merging.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<Vec<&str>> = rows
        .map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let backends = backends();
    assert_eq!(rows.len(), backends.len());
    for (row, backend) in rows.iter().zip(&backends) {
        assert_eq!(quoted(row[0]), backend["name"].as_str());
        let can = &backend["capabilities"];
        let is = |name: &str| can[name].as_bool().expect(name);
        let reads = !can["layers"].as_array().expect("layers").is_empty();
        let expected = [
            reads,
            is("train"),
            is("dequantize"),
            is("requantize") || is("dense"),
            is("quantize"),
        ];
        for (cell, expected) in row[2..].iter().zip(expected) {
            let word = if expected { "yes" } else { "no" };
            let found = cell.split([' ', ',', ':']).next();
            assert_eq!(found, Some(word), "{}: {cell}", row[0]);
        }
    }
}

#[test]
fn the_schemes_that_quantize_are_those_of_the_program() {
    let text = document("README.md");
    let row = text.lines().find(|line| line.starts_with("| quantizing |"));
    let named = row.expect("a row").split('`').skip(1).step_by(2);
    let named: BTreeSet<&str> = named.collect();
    let backends = backends();
    let able = backends
        .iter()
        .filter(|backend| backend["capabilities"]["quantize"] == true);
    let able: BTreeSet<&str> = able
        .filter_map(|backend| backend["name"].as_str())
        .collect();
    assert_eq!(named, able);
}

/// The names of the commands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let is_command = |line: &&str| {
        let name = line.strip_prefix("  ").unwrap_or_default();
        name.starts_with(|c: char| c.is_ascii_lowercase())
    };
    let commands = help.split("\nOptions:").next().unwrap_or_default().lines();
    let commands = commands.filter(is_command);
    let names = commands.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// What `--help` says of the program and of each command.
fn reference() -> String {
    let mut page =
        "# Reference\n\nThis is what `--help` prints. `UPDATE_REFERENCE=1 cargo test --release \
                    --workspace --test program reference` writes the page anew.\n"
            .to_owned();
    let mut commands = vec![vec!["--help".to_owned()]];
    while let Some(words) = commands.pop() {
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let help = good(&args).stdout;
        let path = &words[..words.len() - 1];
        let title = [&["qoft".to_owned()], path].concat().join(" ");
        page.push_str(&format!(
            "\n## {title}\n\n```text\n{}\n```\n",
            help.trim_end()
        ));
        let has_commands = help.contains("<COMMAND>");
        for name in listed(&help).into_iter().rev().filter(|_| has_commands) {
            commands.push([path, &[name, "--help".to_owned()]].concat());
        }
    }
    page
}

#[test]
#[cfg(all(feature = "hub", feature = "parquet", feature = "serve"))]
fn the_reference_is_that_of_the_program() {
    let page = reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        std::fs::write(root.join("docs/reference.md"), &page).expect("a written page");
    }
    assert!(page.contains("## qoft data preview\n"), "{page}");
    let [page, document] = [&page, &document("docs/reference.md")]
        .map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>());
    let differing = page.iter().zip(&document).find(|(a, b)| a != b);
    assert_eq!(
        differing, None,
        "UPDATE_REFERENCE=1 writes docs/reference.md anew"
    );
    assert_eq!(page.len(), document.len());
}
