//! How long it takes to load and quantize a dense model, as `scripts/load_table.py` measured it.

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

use super::Figures;

/// One start of a training.
#[derive(Deserialize)]
struct Start {
    /// The scheme.
    way: String,
    /// What was read: dense weights, a cache, or a quantized folder.
    start: String,
    load_seconds: f64,
    first_step_seconds: f64,
    peak_mib: f64,
    anonymous_mib: f64,
}

/// The table of `docs/memory.md`.
pub fn figures(docs: &Path) -> Result<Figures> {
    let starts: Vec<Start> = super::results(docs, "loading.json")?;
    let mut table = "\n\n| scheme | start | model is there, s | first step is done, s | peak, MiB \
                     | anonymous, MiB |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for found in starts {
        table += &format!(
            "| {} | {} | {:.1} | {:.1} | {:.0} | {:.0} |\n",
            found.way,
            found.start,
            found.load_seconds,
            found.first_step_seconds,
            found.peak_mib,
            found.anonymous_mib
        );
    }
    Ok(Figures::from([("loading", table + "\n")]))
}
