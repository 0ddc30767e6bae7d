//! How the server fared under load, as `scripts/serve_load.py` measured it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Figures;

/// The file with the results.
const FILE: &str = "serving.json";

/// The figures of `docs/serving.md`.
pub fn figures(docs: &Path) -> Result<Figures> {
    let load: Value = super::results(docs, FILE)?;
    let mut figures = Figures::new();
    for (name, pointer) in [
        ("serving-clients", "/clients"),
        ("serving-compared", "/compared_with_generate"),
        ("serving-killed", "/requests/killed"),
        ("serving-malformed", "/requests/malformed"),
        ("serving-seconds", "/seconds"),
        ("serving-speed", "/tokens_per_second"),
        ("serving-batch", "/tokens_per_step"),
        ("serving-quarter", "/memory_mib/after_a_quarter"),
        ("serving-end", "/memory_mib/end"),
    ] {
        let number = load.pointer(pointer).and_then(Value::as_f64);
        let number = number.with_context(|| format!("{FILE}: no {pointer}"))?;
        figures.insert(name, format!("{number:.0}"));
    }
    let problems = load["problems"].as_array();
    let problems = problems.with_context(|| format!("{FILE}: no /problems"))?;
    figures.insert("serving-problems", problems.len().to_string());
    Ok(figures)
}
