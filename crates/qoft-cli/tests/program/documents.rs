//! What the documents say that schemes can do is what the program says.
#![cfg(feature = "all-schemes")]

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::json_of;
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
